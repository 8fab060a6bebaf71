"""Many questions at once on one machine: requests, a scheduler, blocks of KV cache, a runner and a sampler."""
