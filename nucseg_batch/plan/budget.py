"""How the memory of a process is divided among what needs much of it.

Everything that holds many pixels at once asks a `Budget` how many: calls of the network, batches, images that are read
ahead or wait for a full batch. What it says changes only the speed and never a result.
"""

from __future__ import annotations

from dataclasses import dataclass

BASE_BYTES = 1_000_000_000
"""Memory of the program with TensorFlow and the default model on a CPU after the first image (850 MB, measured), and of
what its allocators keep for themselves (fitted to measured runs). Numba is not in it: how large images are tiled, on
which labels may depend, follows from this number."""
NETWORK_BYTES = {"float32": 240, "mixed_bfloat16": 160, "mixed_float16": 160}
"""Memory that the default network takes for each pixel that it sees in a call (measured with TensorFlow on a CPU)."""
SIZER_BYTES = 40
"""The same of the size network."""
SEPARATION_BYTES = 40
"""Memory that separating nuclei on the host takes for each pixel at the network's scale: measured where all is
foreground and each pixel votes for a place of its own. Images of nuclei take 15."""
NETWORK_SHARE = 0.4
"""What the network and separation get of the memory above BASE_BYTES, in all threads together."""
WINDOW_SHARE = 2 / 3
"""What separating nuclei in one window of a large plane gets of that. The backend keeps what its calls needed, and does
not lend it to the separation: a window that took all of the share would come on top of it."""
READ_SHARE = 0.08
"""The same for images that are read ahead, and again for those that wait for a full batch."""
LEAST_CALL = 2**19
"""Calls of the network are not made of fewer pixels than this, however little memory there is."""
BATCH_PIXELS = 2**20
"""Pixels in a batch where nothing was measured: enough to keep a processor busy."""


@dataclass(frozen=True)
class Budget:
    """Memory in bytes that a process may take on the host, and what of it each part of the program may."""

    total: int
    """All of it."""
    precision: str
    """Arithmetic of the network, which decides how much memory a pixel takes there."""

    @property
    def network_bytes(self) -> float:
        """Bytes that calls of the network and separation take, all that run at once together."""
        return max(NETWORK_SHARE * self._free, LEAST_CALL * self.bytes_per_pixel)

    @property
    def bytes_per_pixel(self) -> int:
        """Bytes that the network takes for a pixel at its scale."""
        return NETWORK_BYTES[self.precision]

    @property
    def call_pixels(self) -> int:
        """Pixels at the network's scale in one call at most."""
        return int(self.network_bytes / self.bytes_per_pixel)

    @property
    def batch_pixels(self) -> int:
        """Pixels at the network's scale in a batch of several images: two batches are in flight."""
        return min(BATCH_PIXELS, self.call_pixels // 2)

    @property
    def window_pixels(self) -> int:
        """Pixels at the network's scale of a window of a large plane in which nuclei are separated, at most."""
        return int(WINDOW_SHARE * self.network_bytes / SEPARATION_BYTES)

    @property
    def kept_bytes(self) -> int:
        """Memory of the process that a call must not exceed without freed memory being given back to the system."""
        return int(0.9 * self.total)

    def images_pixels(self, pixels: int) -> int:
        """Pixels of a batch that the network sees at once at scale 1; pixels: of each image.

        In float32 images of a batch go through it one by one: see `network.backend.depends_on_batch`.
        """
        return max(pixels, self.batch_pixels) if self.precision != "float32" else pixels

    @property
    def waiting_bytes(self) -> int:
        """Bytes of decoded images that are read ahead, and again of those that wait until a batch is full."""
        return int(READ_SHARE * self._free)

    @property
    def _free(self) -> int:
        return max(0, self.total - BASE_BYTES)
