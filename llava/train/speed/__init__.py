"""What makes training faster or smaller and leaves its losses as they are."""
