"""Names that isopress adds to a store: its attributes, which all begin with one prefix, and the folder of weights."""

PREFIX = "isopress_"  # `decompress` takes everything that begins so away again
ERROR, SOURCE_ENCODING = PREFIX + "error", PREFIX + "source_encoding"  # of variables
UNLIMITED, ORDER, DIMENSIONS = PREFIX + "unlimited_dims", PREFIX + "order", PREFIX + "dimensions"  # of groups
SELECTION, KIND = PREFIX + "selection", PREFIX + "source_kind"  # of the root
UNFINISHED = PREFIX + "unfinished"  # of the root, while the store is written
JOURNAL = PREFIX + "journal"  # what another run needs to go on with an unfinished store
MODELS_FOLDER = "_models"  # weights: <sha256>.safetensors
