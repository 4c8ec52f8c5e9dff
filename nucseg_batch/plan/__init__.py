"""What will be done, decided before any pixel is read: pure records and functions, no files and no clock.

An image has one plane or several, along time t and depth z, and each plane gets a mask (`images`). Masks share arrays,
whose shards are the units of work (`units`). A `Plan` lists all of it; `scales` says at what size the network
sees what, and `budget` how memory is divided. What the input does not say and was guessed is listed, too
(`assumptions`).
"""

from nucseg_batch.plan.assumptions import Assumption, doubt_error, merged
from nucseg_batch.plan.budget import BATCH_PIXELS, SEPARATION_BYTES, SIZER_BYTES, Budget
from nucseg_batch.plan.compartments import check_compartments, compartment_distances
from nucseg_batch.plan.flat_fields import FieldShape, channel_names, fitting_images
from nucseg_batch.plan.images import Failure, ImageInfo, KnownImages, Plane, PlaneStatus
from nucseg_batch.plan.movies import MovieGroup, check_movies, movie_groups
from nucseg_batch.plan.plan import Plan, earlier_names, joined, make_plan, with_links
from nucseg_batch.plan.scales import COARSE_SIDES, STEP, TILE, Adapt, Scales, bucket_shape, coarse_bucket_shape
from nucseg_batch.plan.shards import ShardGrid
from nucseg_batch.plan.stacks import StackGroup, check_stacks, stack_groups
from nucseg_batch.plan.units import LABEL_BYTES, SHARD_BYTES, LabelArray, LargePlane, Unit, file_stem

__all__ = [
    "BATCH_PIXELS",
    "COARSE_SIDES",
    "LABEL_BYTES",
    "SEPARATION_BYTES",
    "SHARD_BYTES",
    "SIZER_BYTES",
    "STEP",
    "TILE",
    "Adapt",
    "Assumption",
    "Budget",
    "Failure",
    "FieldShape",
    "ImageInfo",
    "KnownImages",
    "LabelArray",
    "LargePlane",
    "MovieGroup",
    "Plan",
    "Plane",
    "PlaneStatus",
    "Scales",
    "ShardGrid",
    "StackGroup",
    "Unit",
    "bucket_shape",
    "channel_names",
    "check_compartments",
    "check_movies",
    "check_stacks",
    "coarse_bucket_shape",
    "compartment_distances",
    "doubt_error",
    "earlier_names",
    "file_stem",
    "fitting_images",
    "joined",
    "make_plan",
    "merged",
    "movie_groups",
    "stack_groups",
    "with_links",
]
