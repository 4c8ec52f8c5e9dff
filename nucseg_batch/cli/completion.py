"""Completion in bash of what stands behind `=`, as in `--device=c`, which bash takes for three words."""

from __future__ import annotations

from collections.abc import MutableMapping


def join_words(environment: MutableMapping[str, str]) -> None:
    """Takes the `=` between an option and its value away from what bash says that was typed, as if it were a space.

    environment: variables of this process; without a request for completion by bash nothing is changed.
    """
    if environment.get("_NUCSEG_BATCH_COMPLETE") != "complete_bash" or "COMP_WORDS" not in environment:
        return
    words, at = environment["COMP_WORDS"].split("\n"), int(environment["COMP_CWORD"])
    if at == len(words):
        words.append("")
    kept, place = list[str](), at
    for number, word in enumerate(words):
        if word == "=" and kept and kept[-1].startswith("--"):
            if number == at:
                kept.append("")
            elif number < at:
                place -= 1
        else:
            kept.append(word)
    environment["COMP_WORDS"], environment["COMP_CWORD"] = "\n".join(kept), str(place)
