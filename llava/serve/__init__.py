"""A server that any OpenAI client talks to, whichever engine is behind it."""
