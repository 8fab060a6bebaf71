"""Front door: the original's names for scoring TextVQA and ST-VQA answers.

``pred_list`` holds ``{"pred_answer": text, "gt_answers": [text, ...]}``, and a score is the mean over it, 0 to 1. A
deliberate difference from the original: an empty list is a UsageError, not a division by zero. TextCaps' BLEU
needs pycocoevalcap, which is not one of this package's dependencies.

Source: haotian-liu/LLaVA@c121f04 llava/eval/m4c_evaluator.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llava.errors import UsageError
from llava.eval.scoring.anls import similarity
from llava.eval.scoring.answer_normalizer import lower_and_trim, normalize_answer, remove_punctuation, replace_words
from llava.eval.scoring.vqa_accuracy import score_m4c

__all__ = [
    "EvalAIAnswerProcessor",
    "STVQAANLSEvaluator",
    "STVQAAccuracyEvaluator",
    "TextCapsBleu4Evaluator",
    "TextVQAAccuracyEvaluator",
]


class EvalAIAnswerProcessor:
    """A callable that normalizes an answer; the constructor ignores its arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, item: str) -> str:
        return normalize_answer(item)

    def word_tokenize(self, word: str) -> str:
        """See ``lower_and_trim``."""
        return lower_and_trim(word)

    def process_punctuation(self, in_text: str) -> str:
        """See ``remove_punctuation``."""
        return remove_punctuation(in_text)

    def process_digit_article(self, in_text: str) -> str:
        """See ``replace_words``."""
        return replace_words(in_text)


class TextVQAAccuracyEvaluator:
    """The soft accuracy of the VQA challenges, over ten people's answers to each question."""

    def __init__(self) -> None:
        self.answer_processor = EvalAIAnswerProcessor()

    def eval_pred_list(self, pred_list: Sequence[Mapping[str, Any]]) -> float:
        """The mean score of ``pred_list``, 0 to 1. Raises UsageError for an empty list."""
        return _mean(pred_list, lambda answer, people: score_m4c(answer, people).score)


class STVQAAccuracyEvaluator:
    """The share of answers that equal one of the true answers after normalization."""

    def __init__(self) -> None:
        self.answer_processor = EvalAIAnswerProcessor()

    def eval_pred_list(self, pred_list: Sequence[Mapping[str, Any]]) -> float:
        """The mean score of ``pred_list``, 0 to 1. Raises UsageError for an empty list."""
        plain = self.answer_processor
        return _mean(pred_list, lambda answer, truths: float(plain(answer) in map(plain, truths)))


class STVQAANLSEvaluator:
    """Mean similarity to the nearest true answer, by edit distance and without normalization."""

    def get_anls(self, s1: str, s2: str) -> float:
        """See ``similarity``."""
        return similarity(s1, s2)

    def eval_pred_list(self, pred_list: Sequence[Mapping[str, Any]]) -> float:
        """The mean score of ``pred_list``, 0 to 1. Raises UsageError for an empty list."""
        return _mean(pred_list, lambda answer, truths: max(self.get_anls(answer, truth) for truth in truths))


class TextCapsBleu4Evaluator:
    """BLEU-4 of captions by pycocoevalcap, which tokenizes with a Java program. Raises UsageError without it."""

    def __init__(self) -> None:
        try:
            from pycocoevalcap.bleu.bleu import Bleu
            from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
        except ImportError as error:
            raise UsageError(
                "BLEU needs pycocoevalcap, and that needs Java: run pip install pycocoevalcap, and install a Java "
                "runtime."
            ) from error
        self.tokenizer, self.scorer = PTBTokenizer(), Bleu(4)

    def eval_pred_list(self, pred_list: Sequence[Mapping[str, Any]]) -> float:
        """The BLEU-4 of all captions together, 0 to 1. Raises UsageError for an empty list."""
        if not pred_list:
            raise UsageError("There are no answers to score: pred_list is empty.")
        truths = {i: [{"caption": truth} for truth in entry["gt_answers"]] for i, entry in enumerate(pred_list)}
        given = {i: [{"caption": entry["pred_answer"]}] for i, entry in enumerate(pred_list)}
        scores, _ = self.scorer.compute_score(self.tokenizer.tokenize(truths), self.tokenizer.tokenize(given))
        return float(scores[3])


def _mean(pred_list: Sequence[Mapping[str, Any]], score: Callable[[str, Sequence[str]], float]) -> float:
    if not pred_list:
        raise UsageError("There are no answers to score: pred_list is empty.")
    return sum(score(entry["pred_answer"], entry["gt_answers"]) for entry in pred_list) / len(pred_list)
