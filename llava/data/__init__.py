"""From data files to records: what a training sample says and shows, before any model is known."""
