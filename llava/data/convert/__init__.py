"""From the datasets' own files to rows of LLaVA's data format: ``llava data convert``."""
