from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_KIND_UNSPECIFIED: _ClassVar[ErrorKind]
    OBJECT_NOT_FOUND: _ClassVar[ErrorKind]
    ACCESS_DENIED: _ClassVar[ErrorKind]
    INVALID_PATH: _ClassVar[ErrorKind]
    ORIGIN_UNAVAILABLE: _ClassVar[ErrorKind]
    VERSION_CHANGED: _ClassVar[ErrorKind]
    CACHE_FULL: _ClassVar[ErrorKind]
    CACHE_BROKEN: _ClassVar[ErrorKind]
    INTERNAL_ERROR: _ClassVar[ErrorKind]
    ALREADY_EXISTS: _ClassVar[ErrorKind]
    SPOOL_FULL: _ClassVar[ErrorKind]
    UPLOAD_FAILED: _ClassVar[ErrorKind]
    STAGE_LOST: _ClassVar[ErrorKind]
ERROR_KIND_UNSPECIFIED: ErrorKind
OBJECT_NOT_FOUND: ErrorKind
ACCESS_DENIED: ErrorKind
INVALID_PATH: ErrorKind
ORIGIN_UNAVAILABLE: ErrorKind
VERSION_CHANGED: ErrorKind
CACHE_FULL: ErrorKind
CACHE_BROKEN: ErrorKind
INTERNAL_ERROR: ErrorKind
ALREADY_EXISTS: ErrorKind
SPOOL_FULL: ErrorKind
UPLOAD_FAILED: ErrorKind
STAGE_LOST: ErrorKind

class Error(_message.Message):
    __slots__ = ("kind", "message")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    kind: ErrorKind
    message: str
    def __init__(self, kind: _Optional[_Union[ErrorKind, str]] = ..., message: _Optional[str] = ...) -> None: ...

class AttachRequest(_message.Message):
    __slots__ = ("client_version",)
    CLIENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    client_version: str
    def __init__(self, client_version: _Optional[str] = ...) -> None: ...

class AttachReply(_message.Message):
    __slots__ = ("daemon_version", "cache_dir", "cache_id", "attach_json", "pid")
    DAEMON_VERSION_FIELD_NUMBER: _ClassVar[int]
    CACHE_DIR_FIELD_NUMBER: _ClassVar[int]
    CACHE_ID_FIELD_NUMBER: _ClassVar[int]
    ATTACH_JSON_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    daemon_version: str
    cache_dir: str
    cache_id: bytes
    attach_json: str
    pid: int
    def __init__(self, daemon_version: _Optional[str] = ..., cache_dir: _Optional[str] = ..., cache_id: _Optional[bytes] = ..., attach_json: _Optional[str] = ..., pid: _Optional[int] = ...) -> None: ...

class Range(_message.Message):
    __slots__ = ("uri", "start", "end", "version", "is_continuation")
    URI_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IS_CONTINUATION_FIELD_NUMBER: _ClassVar[int]
    uri: str
    start: int
    end: int
    version: str
    is_continuation: bool
    def __init__(self, uri: _Optional[str] = ..., start: _Optional[int] = ..., end: _Optional[int] = ..., version: _Optional[str] = ..., is_continuation: bool = ...) -> None: ...

class FillRequest(_message.Message):
    __slots__ = ("ranges", "inline")
    RANGES_FIELD_NUMBER: _ClassVar[int]
    INLINE_FIELD_NUMBER: _ClassVar[int]
    ranges: _containers.RepeatedCompositeFieldContainer[Range]
    inline: bool
    def __init__(self, ranges: _Optional[_Iterable[_Union[Range, _Mapping]]] = ..., inline: bool = ...) -> None: ...

class Filled(_message.Message):
    __slots__ = ("index", "placed", "uncached", "error", "data", "size_bytes", "version", "modified")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    PLACED_FIELD_NUMBER: _ClassVar[int]
    UNCACHED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MODIFIED_FIELD_NUMBER: _ClassVar[int]
    index: int
    placed: Placed
    uncached: Uncached
    error: Error
    data: bytes
    size_bytes: int
    version: str
    modified: float
    def __init__(self, index: _Optional[int] = ..., placed: _Optional[_Union[Placed, _Mapping]] = ..., uncached: _Optional[_Union[Uncached, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ..., data: _Optional[bytes] = ..., size_bytes: _Optional[int] = ..., version: _Optional[str] = ..., modified: _Optional[float] = ...) -> None: ...

class Placed(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Uncached(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FillReply(_message.Message):
    __slots__ = ("filled",)
    FILLED_FIELD_NUMBER: _ClassVar[int]
    filled: _containers.RepeatedCompositeFieldContainer[Filled]
    def __init__(self, filled: _Optional[_Iterable[_Union[Filled, _Mapping]]] = ...) -> None: ...

class ReadRequest(_message.Message):
    __slots__ = ("range",)
    RANGE_FIELD_NUMBER: _ClassVar[int]
    range: Range
    def __init__(self, range: _Optional[_Union[Range, _Mapping]] = ...) -> None: ...

class ReadReply(_message.Message):
    __slots__ = ("data", "size_bytes", "version")
    DATA_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    size_bytes: int
    version: str
    def __init__(self, data: _Optional[bytes] = ..., size_bytes: _Optional[int] = ..., version: _Optional[str] = ...) -> None: ...

class StatRequest(_message.Message):
    __slots__ = ("uri", "fresh")
    URI_FIELD_NUMBER: _ClassVar[int]
    FRESH_FIELD_NUMBER: _ClassVar[int]
    uri: str
    fresh: bool
    def __init__(self, uri: _Optional[str] = ..., fresh: bool = ...) -> None: ...

class StatReply(_message.Message):
    __slots__ = ("uri", "size_bytes", "version", "modified", "cached_bytes", "is_prefix", "pinned")
    URI_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MODIFIED_FIELD_NUMBER: _ClassVar[int]
    CACHED_BYTES_FIELD_NUMBER: _ClassVar[int]
    IS_PREFIX_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    uri: str
    size_bytes: int
    version: str
    modified: float
    cached_bytes: int
    is_prefix: bool
    pinned: bool
    def __init__(self, uri: _Optional[str] = ..., size_bytes: _Optional[int] = ..., version: _Optional[str] = ..., modified: _Optional[float] = ..., cached_bytes: _Optional[int] = ..., is_prefix: bool = ..., pinned: bool = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("uri", "recursive", "fresh")
    URI_FIELD_NUMBER: _ClassVar[int]
    RECURSIVE_FIELD_NUMBER: _ClassVar[int]
    FRESH_FIELD_NUMBER: _ClassVar[int]
    uri: str
    recursive: bool
    fresh: bool
    def __init__(self, uri: _Optional[str] = ..., recursive: bool = ..., fresh: bool = ...) -> None: ...

class ListReply(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[StatReply]
    def __init__(self, entries: _Optional[_Iterable[_Union[StatReply, _Mapping]]] = ...) -> None: ...

class WarmRequest(_message.Message):
    __slots__ = ("uris", "prefix")
    URIS_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    uris: _containers.RepeatedScalarFieldContainer[str]
    prefix: str
    def __init__(self, uris: _Optional[_Iterable[str]] = ..., prefix: _Optional[str] = ...) -> None: ...

class WarmReply(_message.Message):
    __slots__ = ("objects_total", "objects_done", "bytes_total", "bytes_done", "objects_failed", "failures", "listing_done")
    OBJECTS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_DONE_FIELD_NUMBER: _ClassVar[int]
    BYTES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    BYTES_DONE_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FAILED_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    LISTING_DONE_FIELD_NUMBER: _ClassVar[int]
    objects_total: int
    objects_done: int
    bytes_total: int
    bytes_done: int
    objects_failed: int
    failures: _containers.RepeatedCompositeFieldContainer[Failure]
    listing_done: bool
    def __init__(self, objects_total: _Optional[int] = ..., objects_done: _Optional[int] = ..., bytes_total: _Optional[int] = ..., bytes_done: _Optional[int] = ..., objects_failed: _Optional[int] = ..., failures: _Optional[_Iterable[_Union[Failure, _Mapping]]] = ..., listing_done: bool = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("uri", "error")
    URI_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    uri: str
    error: Error
    def __init__(self, uri: _Optional[str] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class EvictRequest(_message.Message):
    __slots__ = ("prefix", "all")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    all: bool
    def __init__(self, prefix: _Optional[str] = ..., all: bool = ...) -> None: ...

class EvictReply(_message.Message):
    __slots__ = ("objects", "bytes")
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    objects: int
    bytes: int
    def __init__(self, objects: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class PinRequest(_message.Message):
    __slots__ = ("prefix", "pinned")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    pinned: bool
    def __init__(self, prefix: _Optional[str] = ..., pinned: bool = ...) -> None: ...

class PinReply(_message.Message):
    __slots__ = ("objects",)
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    objects: int
    def __init__(self, objects: _Optional[int] = ...) -> None: ...

class LeaseRequest(_message.Message):
    __slots__ = ("uri",)
    URI_FIELD_NUMBER: _ClassVar[int]
    uri: str
    def __init__(self, uri: _Optional[str] = ...) -> None: ...

class LeaseReply(_message.Message):
    __slots__ = ("lease", "path")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    lease: str
    path: str
    def __init__(self, lease: _Optional[str] = ..., path: _Optional[str] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("lease",)
    LEASE_FIELD_NUMBER: _ClassVar[int]
    lease: str
    def __init__(self, lease: _Optional[str] = ...) -> None: ...

class ReleaseReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SignRequest(_message.Message):
    __slots__ = ("uri", "method", "expires_s", "form_json")
    URI_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_S_FIELD_NUMBER: _ClassVar[int]
    FORM_JSON_FIELD_NUMBER: _ClassVar[int]
    uri: str
    method: str
    expires_s: int
    form_json: str
    def __init__(self, uri: _Optional[str] = ..., method: _Optional[str] = ..., expires_s: _Optional[int] = ..., form_json: _Optional[str] = ...) -> None: ...

class SignReply(_message.Message):
    __slots__ = ("url", "fields_json")
    URL_FIELD_NUMBER: _ClassVar[int]
    FIELDS_JSON_FIELD_NUMBER: _ClassVar[int]
    url: str
    fields_json: str
    def __init__(self, url: _Optional[str] = ..., fields_json: _Optional[str] = ...) -> None: ...

class CreateBucketRequest(_message.Message):
    __slots__ = ("uri",)
    URI_FIELD_NUMBER: _ClassVar[int]
    uri: str
    def __init__(self, uri: _Optional[str] = ...) -> None: ...

class CreateBucketReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatsReply(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class CheckRequest(_message.Message):
    __slots__ = ("repair",)
    REPAIR_FIELD_NUMBER: _ClassVar[int]
    repair: bool
    def __init__(self, repair: bool = ...) -> None: ...

class CheckReply(_message.Message):
    __slots__ = ("problems", "objects", "bytes")
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    problems: _containers.RepeatedCompositeFieldContainer[Problem]
    objects: int
    bytes: int
    def __init__(self, problems: _Optional[_Iterable[_Union[Problem, _Mapping]]] = ..., objects: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class Problem(_message.Message):
    __slots__ = ("what", "repaired")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    REPAIRED_FIELD_NUMBER: _ClassVar[int]
    what: str
    repaired: bool
    def __init__(self, what: _Optional[str] = ..., repaired: bool = ...) -> None: ...

class StageRequest(_message.Message):
    __slots__ = ("uri", "size_bytes")
    URI_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    uri: str
    size_bytes: int
    def __init__(self, uri: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class StageReply(_message.Message):
    __slots__ = ("file", "granted_bytes")
    FILE_FIELD_NUMBER: _ClassVar[int]
    GRANTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    file: str
    granted_bytes: int
    def __init__(self, file: _Optional[str] = ..., granted_bytes: _Optional[int] = ...) -> None: ...

class GrowRequest(_message.Message):
    __slots__ = ("file", "written_bytes", "wanted_bytes")
    FILE_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_BYTES_FIELD_NUMBER: _ClassVar[int]
    WANTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    file: str
    written_bytes: int
    wanted_bytes: int
    def __init__(self, file: _Optional[str] = ..., written_bytes: _Optional[int] = ..., wanted_bytes: _Optional[int] = ...) -> None: ...

class GrowReply(_message.Message):
    __slots__ = ("granted_bytes",)
    GRANTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    granted_bytes: int
    def __init__(self, granted_bytes: _Optional[int] = ...) -> None: ...

class CommitRequest(_message.Message):
    __slots__ = ("file", "operation", "next_bytes", "is_synced_by_writer", "trailer_json")
    FILE_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    NEXT_BYTES_FIELD_NUMBER: _ClassVar[int]
    IS_SYNCED_BY_WRITER_FIELD_NUMBER: _ClassVar[int]
    TRAILER_JSON_FIELD_NUMBER: _ClassVar[int]
    file: str
    operation: str
    next_bytes: int
    is_synced_by_writer: bool
    trailer_json: str
    def __init__(self, file: _Optional[str] = ..., operation: _Optional[str] = ..., next_bytes: _Optional[int] = ..., is_synced_by_writer: bool = ..., trailer_json: _Optional[str] = ...) -> None: ...

class CommitReply(_message.Message):
    __slots__ = ("version", "next")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    version: str
    next: StageReply
    def __init__(self, version: _Optional[str] = ..., next: _Optional[_Union[StageReply, _Mapping]] = ...) -> None: ...

class AbandonRequest(_message.Message):
    __slots__ = ("file",)
    FILE_FIELD_NUMBER: _ClassVar[int]
    file: str
    def __init__(self, file: _Optional[str] = ...) -> None: ...

class AbandonReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WriteRequest(_message.Message):
    __slots__ = ("trailer_json", "data", "is_last")
    TRAILER_JSON_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    IS_LAST_FIELD_NUMBER: _ClassVar[int]
    trailer_json: str
    data: bytes
    is_last: bool
    def __init__(self, trailer_json: _Optional[str] = ..., data: _Optional[bytes] = ..., is_last: bool = ...) -> None: ...

class ChangeRequest(_message.Message):
    __slots__ = ("operation", "kind", "uri", "target", "missing_ok")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REMOVE: _ClassVar[ChangeRequest.Kind]
        REMOVE_TREE: _ClassVar[ChangeRequest.Kind]
        COPY: _ClassVar[ChangeRequest.Kind]
        MOVE: _ClassVar[ChangeRequest.Kind]
    REMOVE: ChangeRequest.Kind
    REMOVE_TREE: ChangeRequest.Kind
    COPY: ChangeRequest.Kind
    MOVE: ChangeRequest.Kind
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    MISSING_OK_FIELD_NUMBER: _ClassVar[int]
    operation: str
    kind: ChangeRequest.Kind
    uri: str
    target: str
    missing_ok: bool
    def __init__(self, operation: _Optional[str] = ..., kind: _Optional[_Union[ChangeRequest.Kind, str]] = ..., uri: _Optional[str] = ..., target: _Optional[str] = ..., missing_ok: bool = ...) -> None: ...

class ChangeReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FlushRequest(_message.Message):
    __slots__ = ("prefixes",)
    PREFIXES_FIELD_NUMBER: _ClassVar[int]
    prefixes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, prefixes: _Optional[_Iterable[str]] = ...) -> None: ...

class FlushReply(_message.Message):
    __slots__ = ("uploads_left", "bytes_left", "uploads_total", "bytes_total", "failed")
    UPLOADS_LEFT_FIELD_NUMBER: _ClassVar[int]
    BYTES_LEFT_FIELD_NUMBER: _ClassVar[int]
    UPLOADS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    BYTES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    uploads_left: int
    bytes_left: int
    uploads_total: int
    bytes_total: int
    failed: _containers.RepeatedCompositeFieldContainer[Upload]
    def __init__(self, uploads_left: _Optional[int] = ..., bytes_left: _Optional[int] = ..., uploads_total: _Optional[int] = ..., bytes_total: _Optional[int] = ..., failed: _Optional[_Iterable[_Union[Upload, _Mapping]]] = ...) -> None: ...

class Upload(_message.Message):
    __slots__ = ("id", "kind", "uri", "target", "size_bytes", "uploaded_bytes", "age_s", "attempts", "last_error", "state", "blocked_by")
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    UPLOADED_BYTES_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_BY_FIELD_NUMBER: _ClassVar[int]
    id: str
    kind: str
    uri: str
    target: str
    size_bytes: int
    uploaded_bytes: int
    age_s: float
    attempts: int
    last_error: str
    state: str
    blocked_by: str
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[str] = ..., uri: _Optional[str] = ..., target: _Optional[str] = ..., size_bytes: _Optional[int] = ..., uploaded_bytes: _Optional[int] = ..., age_s: _Optional[float] = ..., attempts: _Optional[int] = ..., last_error: _Optional[str] = ..., state: _Optional[str] = ..., blocked_by: _Optional[str] = ...) -> None: ...

class UploadsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UploadsReply(_message.Message):
    __slots__ = ("uploads", "is_overdue")
    UPLOADS_FIELD_NUMBER: _ClassVar[int]
    IS_OVERDUE_FIELD_NUMBER: _ClassVar[int]
    uploads: _containers.RepeatedCompositeFieldContainer[Upload]
    is_overdue: bool
    def __init__(self, uploads: _Optional[_Iterable[_Union[Upload, _Mapping]]] = ..., is_overdue: bool = ...) -> None: ...

class SettleRequest(_message.Message):
    __slots__ = ("ids", "discard")
    IDS_FIELD_NUMBER: _ClassVar[int]
    DISCARD_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    discard: bool
    def __init__(self, ids: _Optional[_Iterable[str]] = ..., discard: bool = ...) -> None: ...

class SettleReply(_message.Message):
    __slots__ = ("settled",)
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    settled: int
    def __init__(self, settled: _Optional[int] = ...) -> None: ...
