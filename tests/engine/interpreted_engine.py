"""An engine with the Triton kernels themselves, interpreted on a CPU: a process of its own, since Triton decides once.

It prints "equal", or the tokens of both sides.
"""

from __future__ import annotations

from llava.engine.gpu.interpreter import interpret_kernels


def main() -> None:
    """Asks two questions, which are answered in prompts, mixed steps and padded decoding steps."""
    interpret_kernels()

    from llava.engine import runner
    from llava.engine.engine import Engine
    from llava.engine.gpu import triton_kernels, workspace
    from llava.model.quantized_linear import quantize_linears
    from llava.native import library
    from tests.engine.test_engine import IMAGES, SLOT, generate, load, question, tokens, words_and_letters

    library.load = lambda: None  # type: ignore[assignment]
    library.status = lambda: "not here"
    runner.find_device_obstacle = lambda device, dtype: None
    runner.choose_kernels = lambda device: triton_kernels
    workspace.MOST_SPLITS = 2  # as many programs would take minutes here
    # Biases, windows, grouped heads and packed matrices in one model.
    window = {"use_sliding_window": True, "max_window_layers": 0, "sliding_window": 6}
    sizes = {"num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 32}
    loaded = load(words_and_letters("the cat sat"), "qwen2", **sizes, **window)
    quantize_linears(loaded.model, 4)
    asked = [
        question(loaded, [1, 5, 6, 7], max_new_tokens=4),
        question(loaded, [1, 5, SLOT, 7], IMAGES[2:], max_new_tokens=2),
    ]
    wanted = [generate(loaded, one) for one in asked]
    with Engine(loaded, memory_bytes=2**18, block_tokens=4, max_running=3) as engine:
        assert engine.fallbacks == ()
        assert engine._runner._windows == [6]
        said = [tokens(stream) for stream in [engine.submit(one) for one in asked]]
    print("equal" if said == wanted else f"{said} {wanted}")


if __name__ == "__main__":
    main()
