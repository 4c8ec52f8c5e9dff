from __future__ import annotations

import threading

import pytest

from nucseg_batch.pipeline.stage_timer import StageTimer


def test_threads_at_one_stage_add_to_its_work_but_not_to_its_busy_time() -> None:
    """Two readers at once are twice the work in the same time: only so can the share never exceed all of it."""
    gauge = StageTimer()
    both = threading.Barrier(2)

    def read() -> None:
        with gauge.busy("read"):
            both.wait()
            both.wait()

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < gauge.share("read") <= 1
    assert gauge.totals()["read"].work > gauge.share("read") * gauge.seconds


def test_a_stage_that_fails_is_no_longer_busy() -> None:
    """An image that cannot be read must not count as read for ever."""
    gauge = StageTimer()
    with pytest.raises(ValueError, match="damaged"), gauge.busy("read"):
        raise ValueError("damaged")
    assert gauge.share("read") == pytest.approx(1)


def test_the_log_names_stages_and_queues() -> None:
    """Whoever wonders why a run is slow reads there which stage was always busy and which queue always full."""
    gauge = StageTimer()
    with gauge.busy("segment"):
        gauge.depth("write (batches)", 2)
        gauge.depth("write (batches)", 0)
    lines = gauge.lines()
    assert [line.split(":")[0] for line in lines] == ["stage segment", "queue write (batches)"]
    assert lines[1].endswith("1 on average, 2 at most")


def test_a_stage_that_never_ran_has_no_share() -> None:
    """As in a run whose images all fail."""
    assert StageTimer().share("read") == 0
    assert StageTimer().lines() == []
