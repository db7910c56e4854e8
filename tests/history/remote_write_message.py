"""Messages of remote write 1.0, decoded by `protobuf` and `cramjam`.

Source of the fields: prometheus, prompb/remote.proto and prompb/types.proto.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cramjam
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "prometheus"


@dataclass(frozen=True, slots=True)
class DecodedSeries:
    """A series: its labels in their order, and its samples as (Unix milliseconds, value)."""

    labels: tuple[tuple[str, str], ...]
    samples: tuple[tuple[int, float], ...]


def decoded(body: bytes) -> list[DecodedSeries]:
    """The series of a compressed message."""
    request = _write_request_class()()
    request.ParseFromString(bytes(cramjam.snappy.decompress_raw(body)))
    return [
        DecodedSeries(
            tuple((label.name, label.value) for label in series.labels),
            tuple((sample.timestamp, sample.value) for sample in series.samples),
        )
        for series in request.timeseries
    ]


def _write_request_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="remote.proto", package=_PACKAGE, syntax="proto3")
    _message(file, "Label", ("name", 1, _Field.TYPE_STRING, ""), ("value", 2, _Field.TYPE_STRING, ""))
    _message(file, "Sample", ("value", 1, _Field.TYPE_DOUBLE, ""), ("timestamp", 2, _Field.TYPE_INT64, ""))
    _message(
        file, "TimeSeries", ("labels", 1, _Field.TYPE_MESSAGE, "Label"), ("samples", 2, _Field.TYPE_MESSAGE, "Sample")
    )
    _message(file, "WriteRequest", ("timeseries", 1, _Field.TYPE_MESSAGE, "TimeSeries"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.WriteRequest"))


def _message(
    file: descriptor_pb2.FileDescriptorProto, name: str, *fields: tuple[str, int, _Field.Type.ValueType, str]
) -> None:
    message = file.message_type.add(name=name)
    for field_name, number, kind, of in fields:
        label = _Field.LABEL_REPEATED if of else _Field.LABEL_OPTIONAL
        field = message.field.add(name=field_name, number=number, type=kind, label=label)
        if of:
            field.type_name = f".{_PACKAGE}.{of}"
