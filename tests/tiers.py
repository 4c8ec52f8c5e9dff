"""Which tests are left out of the fast tier."""

from __future__ import annotations

LONG = (
    "benchmarks",
    "cli/test_bench.py",
    "cli/test_completion.py",
    "executors/test_cluster.py",
    "executors/test_stop.py",
    "faults",
    "network/test_architectures.py",
    "network/test_labelling.py",
    "network/test_model_file.py",
    "network/test_predictor.py",
    "network/test_pretrained.py",
    "pipeline/test_regions.py",
    "results/report/test_browser.py",
    "results/test_model_export.py",
    "slurm",
    "test_assumptions.py",
    "test_every_kind_job.py",
    "test_examples.py",
    "test_measure_job.py",
    "test_segment_job.py",
    "test_translocation_job.py",
    "test_with_images.py",
    "test_workflows.py",
    "training",
)
"""Folders and files whose tests are `long`: they start processes, train or build many networks."""
