"""Every setting, from the environment; embedded or production follows from it.

Embedded is the default: SQLite and a folder of blobs below `FOLKMOOT_DATA_DIR`, one process. A
`FOLKMOOT_DATABASE_URL` makes it production, with as many processes as one likes; with a `FOLKMOOT_BROKER_URL` those of
`folkmoot worker` handle the events.
"""

from __future__ import annotations

from typing import Any

import dj_database_url

from folkmoot.errors import Misconfigured
from folkmoot.server import broker, secret_key
from folkmoot.server import environment as env
from folkmoot.server.storage.address import parse_address
from folkmoot.tensors.limits import Limits

DATA_DIR = env.folder("FOLKMOOT_DATA_DIR", "folkmoot-data")
# file:///path or s3://bucket/prefix?endpoint=...&region=...; empty: below the data folder.
STORAGE_URL = env.text("FOLKMOOT_STORAGE_URL", "")
parse_address(STORAGE_URL)
DATABASE_URL = env.text("FOLKMOOT_DATABASE_URL", "")
EMBEDDED = not DATABASE_URL
BROKER_URL = broker.checked(env.text("FOLKMOOT_BROKER_URL", ""), embedded=EMBEDDED)
# What the names of its queues begin with, so that several hubs may share a broker.
QUEUE_PREFIX = env.text("FOLKMOOT_QUEUE_PREFIX", "folkmoot")

DEBUG = False
SECRET_KEY = secret_key.from_environment_or_folder(DATA_DIR)
ALLOWED_HOSTS = env.names("FOLKMOOT_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")

# Who may create a user over the API. `folkmoot serve` opens it on loopback only.
REGISTRATION = env.choice("FOLKMOOT_REGISTRATION", "closed", ("open", "invite", "closed"))
PARTICIPANTS_MAY_STEER = env.flag("FOLKMOOT_PARTICIPANTS_MAY_STEER", True)
# Django's admin at /admin/: in production somebody has to want it.
ADMIN = env.flag("FOLKMOOT_ADMIN", EMBEDDED)
# Who may read Prometheus' figures at /metrics.
METRICS = env.choice("FOLKMOOT_METRICS", "staff", ("staff", "open", "off"))
# Hosts that notifications may be pushed to. Empty: in embedded mode loopback and public addresses, in production none.
PUSH_ALLOW = env.names("FOLKMOOT_PUSH_ALLOW", "")

MAX_UPLOAD_BYTES = env.whole_number("FOLKMOOT_MAX_UPLOAD_BYTES", 20 * 2**30)
# Of an upload that comes in chunks: the largest chunk; how many uploads a user may have under way, and of how many
# bytes in all; for how long one is kept after its last chunk.
MAX_CHUNK_BYTES = env.whole_number("FOLKMOOT_MAX_CHUNK_BYTES", 64 * 2**20)
MAX_OPEN_UPLOADS = env.whole_number("FOLKMOOT_MAX_OPEN_UPLOADS", 16)
MAX_OPEN_UPLOAD_BYTES = env.whole_number("FOLKMOOT_MAX_OPEN_UPLOAD_BYTES", 40 * 2**30)
UPLOAD_EXPIRY_SECONDS = env.seconds("FOLKMOOT_UPLOAD_EXPIRY_SECONDS", 24 * 3600)
# Of files that were made for a download, and are kept for the next one who asks for the same.
DOWNLOAD_CACHE_BYTES = env.whole_number("FOLKMOOT_DOWNLOAD_CACHE_BYTES", 10 * 2**30)
# How much of a model one worker aggregates at a time, where files are in an S3 store and the strategy allows it.
SHARD_BYTES = env.whole_number("FOLKMOOT_SHARD_BYTES", 256 * 2**20, at_least=5 * 2**20)
# Of files of an S3 store that this machine keeps for the next use; and for how long that store may be silent.
STORAGE_CACHE_BYTES = env.whole_number("FOLKMOOT_STORAGE_CACHE_BYTES", 10 * 2**30)
STORAGE_TIMEOUT = env.seconds("FOLKMOOT_STORAGE_TIMEOUT", 15)
# Polls for notifications that one process holds at a time; of one sender, a tenth of that.
MAX_POLLS = env.whole_number("FOLKMOOT_MAX_POLLS", 10_000)
MAX_JSON_BYTES = env.whole_number("FOLKMOOT_MAX_JSON_BYTES", 2**20)
# Of a question to a model, its input included.
MAX_INFERENCE_BYTES = env.whole_number("FOLKMOOT_MAX_INFERENCE_BYTES", 32 * 2**20)
# The classes that a whole torch module may name beyond torch's own.
TORCH_CLASSES = frozenset(env.names("FOLKMOOT_TORCH_CLASSES", ""))
MODEL_FILE_LIMITS = Limits(
    max_bytes=MAX_UPLOAD_BYTES,
    max_header_bytes=env.whole_number("FOLKMOOT_MAX_HEADER_BYTES", 16 * 2**20),
    max_tensors=env.whole_number("FOLKMOOT_MAX_TENSORS", 100_000),
    max_name_length=env.whole_number("FOLKMOOT_MAX_NAME_LENGTH", 512),
    max_members=env.whole_number("FOLKMOOT_MAX_MEMBERS", 4_096),
    max_ratio=env.whole_number("FOLKMOOT_MAX_INFLATION", 200),
    max_nesting=env.whole_number("FOLKMOOT_MAX_NESTING", 100),
    max_pickle_ops=env.whole_number("FOLKMOOT_MAX_PICKLE_OPS", 2_000_000),
    torch_classes=TORCH_CLASSES,
)
MAX_NUM_EXAMPLES = env.whole_number("FOLKMOOT_MAX_NUM_EXAMPLES", 10**9)

# Of the processes that run models: how long one may take to load a model, and again for each answer; its memory;
# its answer; how many there may be; how much memory the idle ones may keep in all.
SANDBOX_SECONDS = env.seconds("FOLKMOOT_SANDBOX_SECONDS", 30)
SANDBOX_MEMORY_BYTES = env.whole_number("FOLKMOOT_SANDBOX_MEMORY_BYTES", 4 * 2**30)
SANDBOX_OUTPUT_BYTES = env.whole_number("FOLKMOOT_SANDBOX_OUTPUT_BYTES", 32 * 2**20)
SANDBOX_PROCESSES = env.whole_number("FOLKMOOT_SANDBOX_PROCESSES", 16)
SANDBOX_CACHE_BYTES = env.whole_number("FOLKMOOT_SANDBOX_CACHE_BYTES", 4 * 2**30)

# Seconds: how long a worker owns an event before another may take it, how often overdue things are looked for,
# and how old a blob that nothing refers to must be before it is removed.
LEASE_SECONDS = env.seconds("FOLKMOOT_LEASE_SECONDS", 30)
SWEEP_SECONDS = env.seconds("FOLKMOOT_SWEEP_SECONDS", 5)
ORPHAN_GRACE_SECONDS = env.seconds("FOLKMOOT_ORPHAN_GRACE_SECONDS", 3600)
# Of stored files, how many bytes are read in each such sweep to see that they are whole.
CHECK_BYTES = env.whole_number("FOLKMOOT_CHECK_BYTES", 2**30)
# Of trainings whose options do not say: for how many seconds a round waits, and how often it is tried again.
ROUND_TIMEOUT = env.seconds("FOLKMOOT_ROUND_TIMEOUT", 86_400)
ROUND_RETRIES = env.whole_number("FOLKMOOT_ROUND_RETRIES", 2, at_least=0)
# How long the server waits for more of a request's body, or for more of an answer to be taken.
BODY_TIMEOUT_SECONDS = env.seconds("FOLKMOOT_BODY_TIMEOUT_SECONDS", 30)
# Bytes a second, on average over that time, that have to come of a body of more than 64 KiB.
MIN_UPLOAD_RATE = env.whole_number("FOLKMOOT_MIN_UPLOAD_RATE", 16 * 2**10)
# For how long a round waits for space to write its checkpoint, or for files that cannot be read.
STORAGE_WAIT = env.seconds("FOLKMOOT_STORAGE_WAIT", 24 * 3600)
# The first pause before a failed event or push is tried again; each further one is twice as long.
RETRY_SECONDS = env.seconds("FOLKMOOT_RETRY_SECONDS", 1)

# Tests only: kill the process at a named point (see faults.py).
TEST_FAULT = env.text("FOLKMOOT_TEST_FAULT", "")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "folkmoot.server.accounts",
    "folkmoot.server.outbox",
    "folkmoot.server.notifications",
    "folkmoot.server.registry",
    "folkmoot.server.uploads",
    "folkmoot.server.trainings",
    "folkmoot.server.inference",
]

MIDDLEWARE = [
    "folkmoot.server.api.observing.observe",
    "folkmoot.server.api.content_policy.forbid_active_content",
    "folkmoot.server.api.content_encoding.refuse_encoded_bodies",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "folkmoot.server.urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False


# Beyond, PostgreSQL ends a statement, so that one request cannot keep its server busy; migrations are exempt.
STATEMENT_SECONDS = 10
# Beyond, a database server that says nothing at all, to a connection or on one, counts as gone.
SILENCE_SECONDS = 10


def _databases() -> dict[str, dict[str, object]]:
    # A thread keeps its connection: opening one costs more than most requests.
    common = {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": not EMBEDDED}
    if EMBEDDED:
        sqlite = {
            "ENGINE": "folkmoot.server.sqlite",
            "NAME": DATA_DIR / "folkmoot.sqlite3",
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 5,
                # FULL: what was acknowledged survives a power cut.
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;",
            },
        }
        return {"default": sqlite | common}
    try:
        production: dict[str, Any] = {**dj_database_url.parse(DATABASE_URL)}
    except ValueError as error:
        hint = "FOLKMOOT_DATABASE_URL is no database URL; postgres://user:password@host/name is one"
        raise Misconfigured(hint) from error
    if "postgresql" in str(production["ENGINE"]):
        # A process that freezes within a transaction keeps its locks; beyond its lease it is to lose them, too.
        idle = 1000 * max(LEASE_SECONDS, 5)
        limits = f"-c idle_in_transaction_session_timeout={idle:.0f} -c statement_timeout={STATEMENT_SECONDS}s"
        ours = {
            "connect_timeout": SILENCE_SECONDS,
            "tcp_user_timeout": 1000 * SILENCE_SECONDS,
            "keepalives_idle": SILENCE_SECONDS // 2,
            "keepalives_interval": 1,
            "keepalives_count": SILENCE_SECONDS // 2,
        }
        theirs = production.get("OPTIONS", {})
        # Of a parameter that is named twice the last one holds.
        options = f"{limits} {theirs.get('options', '')}".rstrip()
        production["OPTIONS"] = {**ours, **theirs, "options": options}
    return {"default": {**production, **common}}


DATABASES = _databases()
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "accounts.User"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]

USE_TZ = True
TIME_ZONE = "UTC"

LOGIN_REDIRECT_URL = "/api/"
SESSION_COOKIE_HTTPONLY = True
CSRF_COOKIE_HTTPONLY = True
# Cookies over TLS alone; `folkmoot serve` without a certificate turns this off.
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = env.flag("FOLKMOOT_SECURE_COOKIES", True)
SECURE_CONTENT_TYPE_NOSNIFF = True

# The text in a form. Only questions to models may have so much: the API's parsers are stricter with all else.
DATA_UPLOAD_MAX_MEMORY_SIZE = max(MAX_JSON_BYTES, MAX_INFERENCE_BYTES)
# The name and the value of each of the most metrics that a request may bring, and the other fields of an update.
DATA_UPLOAD_MAX_NUMBER_FIELDS = 2 * 1000 + 10
FILE_UPLOAD_HANDLERS = ["folkmoot.server.storage.upload.BlobUploadHandler"]

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "folkmoot.server.api.authentication.TokenAuthentication",
        "folkmoot.server.api.authentication.BasicAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_PARSER_CLASSES": ["folkmoot.server.api.parsers.JSONParser"],
    "DEFAULT_RENDERER_CLASSES": [
        "rest_framework.renderers.JSONRenderer",
        "folkmoot.server.api.browsable.BrowserPages",
    ],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "folkmoot.server.api.browsable.Negotiation",
    "DEFAULT_SCHEMA_CLASS": "folkmoot.server.api.schema.OperationSchema",
    "EXCEPTION_HANDLER": "folkmoot.server.api.errors.handle",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Folkmoot",
    "DESCRIPTION": "Train one model together over plain HTTPS, without pooling data.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "ENUM_NAME_OVERRIDES": {
        "DoingEnum": "folkmoot.server.api.serializers.participants.DOINGS",
        "ReportedEnum": "folkmoot.server.api.serializers.participants.REPORTED",
    },
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "folkmoot.server.api.whole_schema.complete",
    ],
}

_LOG_LEVEL = env.choice("FOLKMOOT_LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR"))
_LOG_FORMAT = env.choice("FOLKMOOT_LOG_FORMAT", "text", ("text", "json"))
# A line for each request.
_ACCESS_LOG = env.flag("FOLKMOOT_ACCESS_LOG", False)
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "text": {"format": "{asctime} {levelname} {name} [{request_id}]: {message}", "style": "{"},
        "json": {
            "()": "pythonjsonlogger.json.JsonFormatter",
            "format": "{time}{levelname}{name}{message}{request_id}",
            "style": "{",
            "timestamp": "time",
            "rename_fields": {"levelname": "level", "name": "logger"},
        },
    },
    "filters": {"request_id": {"()": "folkmoot.server.request_ids.RequestIdFilter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": _LOG_FORMAT, "filters": ["request_id"]}},
    "loggers": {
        "folkmoot": {"handlers": ["stderr"], "level": _LOG_LEVEL},
        "folkmoot.access": {"level": "INFO" if _ACCESS_LOG else "ERROR"},
        # Celery tells of every connection and task; what it warns of is worth a line.
        "celery": {"handlers": ["stderr"], "level": "WARNING"},
        "kombu": {"handlers": ["stderr"], "level": "WARNING"},
        # A refused request is the caller's affair; a fault of ours is logged with its traceback.
        "django.request": {"handlers": ["stderr"], "level": "ERROR", "propagate": False},
        "django.security": {"handlers": ["stderr"], "level": "ERROR", "propagate": False},
        # What the web server itself has to say.
        "uvicorn.error": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
    },
}
