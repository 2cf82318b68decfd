"""The bounds on what a request may bring and cost, as plain numbers: whoever enforces one takes it from here.

`server/limits_table.py` tells what each is for and what a client gets that goes beyond. Those that an operator can set
are in `config.py`. What bounds model files lies with their readers, in `model/` and `store/`.
"""

from __future__ import annotations

# ---- a connection -------------------------------------------------------------------------------------------------
MAX_HEAD_BYTES = 64 << 10  # request line and headers
MAX_PIPELINED = 16  # requests that wait on one connection for the answer before theirs
KEEP_ALIVE_TIMEOUT_S = 75.0  # longer than clients keep theirs, so that none writes into a closing connection
LINGER_S = 10.0  # after an answer, for a body that nobody reads any more, or for what the client has not taken yet

# ---- a body -------------------------------------------------------------------------------------------------------
MAX_UPLOAD_FORM_BYTES = 1 << 20  # of the form around a file
MAX_FILE_BYTES = 512 << 20
MAX_DEPTH = 64  # objects and lists inside one another
MAX_CONTAINERS = 100_000  # objects and lists in one body
MAX_VALUES = 2_000_000  # commas outside strings: token ids of a long prompt, not a memory bomb

# ---- what a call holds --------------------------------------------------------------------------------------------
MAX_MESSAGES = 10_000  # or items of a response's input
MAX_PARTS = 10_000  # of one message's content
MAX_TOOL_CALLS = 1024  # of one message
MAX_IMAGES = 0  # no model here sees
MAX_TOOLS = 1024
MAX_OPENAI_TOOLS = 128  # OpenAI's own limit
MAX_PROMPTS = 256
MAX_CHOICES = 1024  # prompts x n
MAX_INPUTS = 10_000  # of embeddings
MAX_TEXTS = 10_000  # to score or to rank
MAX_DOCUMENTS = 1024
MAX_TEMPLATE_KWARGS = 64
MAX_METADATA = 16

# ---- sampling -----------------------------------------------------------------------------------------------------
MAX_N = 64
MAX_STOP_STRINGS = 16
MAX_STOP_LENGTH = 1024  # characters in each
MAX_STOP_TOKEN_IDS = 1024
MAX_LOGIT_BIAS = 1024
MAX_LOGPROBS = 20
MAX_BAD_WORDS = 256
MAX_BAD_WORD_LENGTH = 256  # characters in each
MAX_ALLOWED_TOKEN_IDS = 1 << 18  # no vocabulary is larger
MAX_SALT_LENGTH = 256  # characters
MAX_REQUEST_ID_LENGTH = 128  # characters

# ---- grammars -----------------------------------------------------------------------------------------------------
MAX_GRAMMAR_CHOICES = 10_000  # texts, one of which an answer is
MAX_SOURCE_LENGTH = 1 << 20  # characters of a schema, a pattern or a grammar
MAX_SCHEMA_DEPTH = 100
MAX_SCHEMA_VALUES = 50_000
MAX_COMPILE_S = 10.0
MAX_COMPILING = 2  # at once; one that has run out of time goes on until llguidance's own limits end it
GRAMMAR_CACHE_BYTES = 64 << 20

# ---- templates ----------------------------------------------------------------------------------------------------
MAX_TEMPLATE_CHARS = 256 << 10  # of its source
MAX_TEMPLATE_CPU_S = 2.0  # CPU time of one rendering; a busy machine does not count against a template
MAX_RENDERED_CHARS = 8 << 20  # of a text that a template makes, the prompt included
MAX_RENDERED_TOTAL_CHARS = 256 << 20  # of all texts made on the way
MAX_RENDERED_ITEMS = 1 << 18  # of a list, and values in a nested one

# ---- what is kept -------------------------------------------------------------------------------------------------
MAX_STORED_FILE_BYTES = 16 << 30  # of one key's files
MAX_BATCH_LINES = 50_000
MAX_BATCH_LINE_BYTES = 8 << 20
MAX_STORE_JOBS = 32  # pulls, pushes, creates and uploads of blobs at once; each has a thread
MAX_LOOKUPS = 64  # renders and detokenizations under way in a worker
