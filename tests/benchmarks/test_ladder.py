"""The ladder's held-out words: nothing of them is left in what is trained on, but for masks and embeddings."""

import sys
from pathlib import Path

import numpy as np
import pytest

from uov_hf.configuration_uov import IGNORED
from uov_hf.data import load_frames
from uov_hf.teachers import load_teacher
from uov_hf.vocabulary import load_vocabulary


@pytest.fixture(scope="module")
def ladder_words():
    benchmarks = str(Path(__file__).resolve().parents[2] / "benchmarks")
    sys.path.insert(0, benchmarks)
    try:
        import ladder_words

        yield ladder_words
    finally:
        sys.path.remove(benchmarks)


def test_no_word_of_a_held_out_class_is_left_and_the_others_keep_theirs(ladder_words):
    everything = load_vocabulary("nuscenes")
    left = ladder_words.without_classes(everything, ladder_words.HELD_OUT)
    assert left.class_names == [name for name in everything.class_names if name not in ladder_words.HELD_OUT]
    for vocabulary in (everything, left):
        assert len(vocabulary.prompts) == len(vocabulary.prompt_to_class) == len(vocabulary.prompt_groups)
    words = {name: words_of(everything, name) for name in left.class_names}
    assert words == {name: words_of(left, name) for name in left.class_names}
    assert set(left.prompt_to_class) == {*range(len(left.class_names)), IGNORED}


def test_a_teacher_without_words_keeps_masks_and_embeddings_and_calls_the_rest_undistinguishable(
    ladder_words, tiny_street
):
    everything = load_vocabulary("nuscenes")
    left = ladder_words.without_classes(everything, ladder_words.HELD_OUT)
    teacher = load_teacher("synthetic", prompts=everything.prompts, data_dir=str(tiny_street))
    frame = load_frames("nuscenes", split="all", data_dir=tiny_street)[0]
    silent = ladder_words.WithoutWords(teacher, left.prompts)
    held_out = [everything.class_names.index(name) for name in ladder_words.HELD_OUT]
    num_silenced = 0
    for full, reduced in zip(teacher.segment(frame), silent.segment(frame), strict=True):
        np.testing.assert_array_equal(reduced.segmentation, full.segmentation)
        np.testing.assert_array_equal(reduced.embeds, full.embeds)
        silenced = np.isin(everything.prompt_to_class[full.labels], held_out)
        num_silenced += silenced.sum()
        assert {left.prompts[label] for label in reduced.labels[silenced]} <= {ladder_words.UNKNOWN}
        for before, after in zip(full.labels[~silenced], reduced.labels[~silenced], strict=True):
            assert left.prompts[after] == everything.prompts[before]
    assert num_silenced


def words_of(vocabulary, name: str) -> list[str]:
    rows = np.flatnonzero(vocabulary.prompt_to_class == vocabulary.class_names.index(name))
    return [vocabulary.prompts[row] for row in rows]
