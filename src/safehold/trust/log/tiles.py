"""Tiles and entry bundles: the static files of C2SP tlog-tiles, written and read."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from safehold.trust.log.interface import Checkpoint, LogError, LogSource, LogTamperError
from safehold.trust.log.merkle import EMPTY_ROOT, HASH_BYTES, fold, hash_children, hash_leaf

WIDTH = 256
HEIGHT = 8
MAX_ENTRY_BYTES = 2**16 - 1
_CACHED_TILES = 512


def index_path(index: int) -> str:
    """Return the index in zero-padded groups of three: 1234067 is `x001/x234/067`."""
    parts = [f"{index % 1000:03d}"]
    index //= 1000
    while index:
        parts.append(f"x{index % 1000:03d}")
        index //= 1000
    return "/".join(reversed(parts))


def tile_path(level: int, index: int, width: int = WIDTH) -> str:
    """Return the path of a hash tile; a width below 256 names a partial tile."""
    return f"tile/{level}/{index_path(index)}{_suffix(width)}"


def bundle_path(index: int, width: int = WIDTH) -> str:
    """Return the path of an entry bundle."""
    return f"tile/entries/{index_path(index)}{_suffix(width)}"


def _suffix(width: int) -> str:
    return "" if width == WIDTH else f".p/{width}"


def width_of(level: int, index: int, size: int) -> int:
    """Return how many hashes the tile has in a tree of `size` leaves (0: there is no tile)."""
    return max(0, min(WIDTH, (size >> (HEIGHT * level)) - index * WIDTH))


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Return entries with their big-endian uint16 lengths."""
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def decode_bundle(data: bytes) -> list[bytes]:
    """Return the entries of a bundle.

    Raises:
        LogTamperError: a length points beyond the end.
    """
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 2], "big")
        entry = data[at + 2 : at + 2 + length]
        if at + 2 > len(data) or len(entry) < length:
            raise LogTamperError("expected a whole entry bundle, got a truncated one")
        entries.append(entry)
        at += 2 + length
    return entries


def check_entry(entry: bytes) -> None:
    """Refuse an entry that no bundle can hold.

    Raises:
        LogError: it is empty or longer than 65,535 bytes.
    """
    if not 0 < len(entry) <= MAX_ENTRY_BYTES:
        raise LogError(f"expected an entry of 1 to {MAX_ENTRY_BYTES} bytes, got {len(entry)}")


def split(tile: bytes) -> list[bytes]:
    """Return the hashes of a tile."""
    return [tile[at : at + HASH_BYTES] for at in range(0, len(tile), HASH_BYTES)]


def root_of(rows: Sequence[Sequence[bytes]]) -> bytes:
    """Return the root of a tree from each level's partial tile, the lowest level first."""
    root: bytes | None = None
    for row in rows:
        end, span = len(row), 1
        while end:
            if end & span:
                part = fold(list(row[end - span : end]))
                root = part if root is None else hash_children(part, root)
                end -= span
            span <<= 1
    return EMPTY_ROOT if root is None else root


class TileReader:
    """Reads subtree hashes and entries of one signed tree from static files, and believes no file.

    A partial tile is checked with the others of the tree's right edge, which have its root
    together. A full tile is checked by its hash in the tile above, and entries by their tile.
    """

    def __init__(self, source: LogSource, head: Checkpoint) -> None:
        """Begin to read.

        Args:
            source: The static files.
            head: The tree they must be of. Whoever makes the reader has checked its signature.
        """
        self.size = head.size
        self._head = head
        self._source = source
        self._edge: dict[int, bytes] | None = None
        self._tiles: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    def node(self, level: int, index: int) -> bytes:
        """Return the hash of a complete subtree (a `NodeReader`)."""
        tile_level, inner = divmod(level, HEIGHT)
        first = index << inner
        tile = self._tile(tile_level, first // WIDTH)
        at = (first % WIDTH) * HASH_BYTES
        count = 1 << inner
        piece = tile[at : at + count * HASH_BYTES]
        if len(piece) != count * HASH_BYTES:
            raise LogTamperError(f"tile {tile_level}/{first // WIDTH} is too short for the tree")
        return fold(split(piece))

    def _tile(self, level: int, index: int) -> bytes:
        width = width_of(level, index, self.size)
        if width < WIDTH:
            return self._right_edge().get(level, b"") if width else b""
        key = (level, index)
        if key in self._tiles:
            self._tiles.move_to_end(key)
            return self._tiles[key]
        data = self._hashes(level, index, WIDTH)
        above = self._tile(level + 1, index // WIDTH)
        at = (index % WIDTH) * HASH_BYTES
        if fold(split(data)) != above[at : at + HASH_BYTES]:
            raise LogTamperError(f"tile {level}/{index} contradicts the signed tree")
        self._tiles[key] = data
        if len(self._tiles) > _CACHED_TILES:
            self._tiles.popitem(last=False)
        return data

    def _right_edge(self) -> dict[int, bytes]:
        """Return the tree's partial tiles by level, which have its root together."""
        if self._edge is None:
            edge: dict[int, bytes] = {}
            level = 0
            while self.size >> (HEIGHT * level):
                index = self.size >> (HEIGHT * (level + 1))
                if width := width_of(level, index, self.size):
                    edge[level] = self._hashes(level, index, width)
                level += 1
            if root_of([split(edge.get(one, b"")) for one in range(level)]) != self._head.root:
                raise LogTamperError("the log's tiles contradict its signed checkpoint")
            self._edge = edge
        return self._edge

    def _hashes(self, level: int, index: int, width: int) -> bytes:
        """Return the bytes of a tile's first hashes, unchecked but for their length."""
        data = self._source.read(tile_path(level, index, width))
        there = width
        if data is None:  # what was partial is full since
            data, there = self._source.read(tile_path(level, index)), WIDTH
        if data is None:
            raise LogTamperError(f"the log lacks {tile_path(level, index, width)}")
        if len(data) != there * HASH_BYTES:
            raise LogTamperError(f"tile {level}/{index} has the wrong size")
        return data[: width * HASH_BYTES]

    def leaf_hashes(self, tile: int) -> list[bytes]:
        """Return the leaf hashes of one level-0 tile."""
        return split(self._tile(0, tile))

    def bundle(self, index: int) -> list[bytes]:
        """Return the entries of one bundle, as many as the tree has.

        Raises:
            LogTamperError: the file is missing, damaged or short, or holds other entries than the
                signed tree.
        """
        width = width_of(0, index, self.size)
        data = self._source.read(bundle_path(index, width))
        there = width
        if data is None:
            data, there = self._source.read(bundle_path(index)), WIDTH
        if data is None:
            raise LogTamperError(f"the log lacks {bundle_path(index, width)}")
        entries = decode_bundle(data)
        if len(entries) != there:
            raise LogTamperError(f"entry bundle {index} has another number of entries")
        if [hash_leaf(entry) for entry in entries[:width]] != self.leaf_hashes(index):
            raise LogTamperError(f"entry bundle {index} contradicts its tile")
        return entries[:width]

    def entries(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yield index and bytes of every entry from `start` on."""
        for bundle in range(start // WIDTH, -(-self.size // WIDTH)):
            for offset, entry in enumerate(self.bundle(bundle)):
                index = bundle * WIDTH + offset
                if index >= start:
                    yield index, entry


class Frontier:
    """The right edge of a growing tree: what an append needs, and no more.

    Holds the hashes of each level's last, not yet full tile: at most 255 per level.
    """

    def __init__(self) -> None:
        self.size = 0
        self._rows: list[list[bytes]] = [[]]

    def add(self, leaf: bytes) -> list[tuple[int, int, bytes]]:
        """Append a leaf hash; return the tiles that became full as (level, index, bytes)."""
        full: list[tuple[int, int, bytes]] = []
        self.size += 1
        level, value = 0, leaf
        while True:
            if level == len(self._rows):
                self._rows.append([])
            row = self._rows[level]
            row.append(value)
            if len(row) < WIDTH:
                return full
            full.append((level, (self.size >> (HEIGHT * (level + 1))) - 1, b"".join(row)))
            value = fold(row)
            row.clear()
            level += 1

    def partials(self) -> list[tuple[int, int, int, bytes]]:
        """Return the partial tiles of this size as (level, index, width, bytes)."""
        return [
            (level, self.size >> (HEIGHT * (level + 1)), len(row), b"".join(row))
            for level, row in enumerate(self._rows)
            if row
        ]

    def root(self) -> bytes:
        """Return the root hash of this size."""
        return root_of(self._rows)

    @classmethod
    def of(cls, reader: TileReader, size: int | None = None) -> "Frontier":
        """Return the frontier of a stored tree's first leaves (None: of all), from its tiles.

        Raises:
            LogTamperError: a tile is missing or short.
        """
        frontier = cls()
        frontier.size = size = reader.size if size is None else size
        frontier._rows = []
        level = 0
        while level == 0 or size >> (HEIGHT * level):
            index = size >> (HEIGHT * (level + 1))
            width = width_of(level, index, size)
            row = [reader.node(HEIGHT * level, index * WIDTH + at) for at in range(width)]
            frontier._rows.append(row)
            level += 1
        return frontier
