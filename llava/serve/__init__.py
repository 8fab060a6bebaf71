"""A server that any OpenAI client can talk to, whichever engine runs the model."""
