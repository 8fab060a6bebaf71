"""Stands in for SGLang's compiled kernels, of which PyPI has a build for CUDA only: ``import sgl_kernel`` on a CPU.

SGLang's own fallbacks in plain torch do all the arithmetic on a CPU without AMX. What it calls of its kernels there is
one piece of bookkeeping, written out below. Every other name exists, because SGLang imports many of them at the top of
its modules, and raises when it is called: a number that comes out was computed by SGLang's own code, never here. It is
no package on purpose: imports from below it fail, and SGLang then takes the fallbacks that it has for that.
"""

__version__ = "0.4.10"  # SGLang looks at it


def assign_req_to_token_pool_cpu(
    req_pool_indices, req_to_token, start_offset, end_offset, out_cache_loc, pool_len=None
):  # type: ignore[no-untyped-def]
    """Writes down, for each request of a batch, in which places of the cache its new positions [start, end) lie."""
    begin = 0
    for i, request in enumerate(req_pool_indices.tolist()):
        start, end = int(start_offset[i]), int(end_offset[i])
        places = out_cache_loc[begin : begin + end - start]
        req_to_token[request, start:end] = places.to(req_to_token.dtype)
        begin += end - start


class _Missing:
    """A kernel that is not there."""

    def __init__(self, name):  # type: ignore[no-untyped-def]
        self.__dict__["name"] = name

    def __call__(self, *arguments, **keywords):  # type: ignore[no-untyped-def]
        raise NotImplementedError(f"{self.name} has no stand-in for CPUs")

    def __getattr__(self, name):  # type: ignore[no-untyped-def]
        if name.startswith("__"):
            raise AttributeError(name)
        return _Missing(f"{self.name}.{name}")

    def __hash__(self):  # type: ignore[no-untyped-def]
        return hash(self.name)


def __getattr__(name):  # type: ignore[no-untyped-def]
    if name.startswith("__"):
        raise AttributeError(name)
    return _Missing(f"sgl_kernel.{name}")
