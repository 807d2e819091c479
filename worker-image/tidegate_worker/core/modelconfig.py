"""Typed fields -> Triton's config.pbtxt, through the protobuf of model_config.proto.

An existing config.pbtxt is the base, typed fields replace theirs, `config` goes last. Name and
version_policy are ours. `priority_levels` is never written: it stalls requests for 500 ms in
Triton 2.51.0 (measured).
"""

from collections.abc import Iterable, Mapping
from typing import Literal

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2 as proto

from tidegate_api.names import Reason
from tidegate_api.quantity import duration_us
from tidegate_api.state import Traits
from tidegate_api.template import DynamicBatching, InstanceGroup, Model, Warmup
from tidegate_worker.core.errors import ModelError

DeviceKind = Literal["GPU", "CPU", "Neuron"]
_KINDS = {"GPU": "KIND_GPU", "CPU": "KIND_CPU", "Neuron": "KIND_MODEL"}


def render(model: Model, version: int, kind: DeviceKind, base: str = "") -> str:
    """Return config.pbtxt of a model that is served as `version` on a class of `kind`."""
    config = proto.ModelConfig()
    try:
        text_format.Parse(base, config)
    except text_format.ParseError as error:
        raise _invalid(f"its config.pbtxt does not parse: {error}") from error
    _typed_fields(config, model, kind)
    _other_fields(config, model)
    config.name = model.name
    config.ClearField("version_policy")
    config.version_policy.specific.versions.append(version)
    return str(text_format.MessageToString(config))


def traits(config: Mapping[str, object]) -> Traits:
    """Return what routing must know of a loaded config (Triton's JSON form)."""
    message = proto.ModelConfig()
    json_format.ParseDict(dict(config), message, ignore_unknown_fields=True)
    return Traits(
        decoupled=message.model_transaction_policy.decoupled,
        sequence=message.HasField("sequence_batching"),
        ensemble=message.platform == "ensemble" or message.HasField("ensemble_scheduling"),
        dynamic_batching=message.HasField("dynamic_batching"),
        max_batch_size=message.max_batch_size,
        instances=max(1, sum(max(1, g.count) for g in message.instance_group)),
        text=_named("text_input", message.input) and _named("text_output", message.output),
    )


def _named(name: str, tensors: Iterable[proto.ModelInput | proto.ModelOutput]) -> bool:
    return any(tensor.name == name for tensor in tensors)


def sequence_idle_s(config: Mapping[str, object]) -> float:
    """Return after how many idle seconds Triton ends a sequence; 0 for other models."""
    found = config.get("sequence_batching")
    if not isinstance(found, Mapping):
        return 0.0
    return int(found.get("max_sequence_idle_microseconds") or 1_000_000) / 1e6


def _typed_fields(config: proto.ModelConfig, model: Model, kind: DeviceKind) -> None:
    if model.backend is not None:
        config.ClearField("platform")
        config.backend = model.backend
    if model.max_batch_size is not None:
        config.max_batch_size = model.max_batch_size
    if model.dynamic_batching is not None:
        config.ClearField("dynamic_batching")
        _dynamic_batching(config.dynamic_batching, model.dynamic_batching)
    if model.instances is not None:
        config.ClearField("instance_group")
        _instances(config, model.instances, kind)
    if model.warmup is not None:
        config.ClearField("model_warmup")
        _warmup(config, model.warmup)


def _dynamic_batching(target: proto.ModelDynamicBatching, wanted: DynamicBatching) -> None:
    target.SetInParent()
    target.preferred_batch_size.extend(wanted.preferred_batch_sizes or [])
    if wanted.max_queue_delay is not None:
        target.max_queue_delay_microseconds = duration_us(wanted.max_queue_delay)
    queue = wanted.queue
    if queue is None:
        return
    policy = target.default_queue_policy
    policy.SetInParent()
    if queue.max_size is not None:
        policy.max_queue_size = queue.max_size
    if queue.timeout is not None:
        policy.default_timeout_microseconds = duration_us(queue.timeout)
    if queue.timeout_action is not None:
        actions = {"Reject": proto.ModelQueuePolicy.REJECT, "Delay": proto.ModelQueuePolicy.DELAY}
        policy.timeout_action = actions[queue.timeout_action]


def _instances(
    config: proto.ModelConfig, groups: Iterable[InstanceGroup], kind: DeviceKind
) -> None:
    for group in groups:
        name = _KINDS[group.kind or kind]
        config.instance_group.add(kind=proto.ModelInstanceGroup.Kind.Value(name), count=group.count)


def _warmup(config: proto.ModelConfig, warmups: Iterable[Warmup]) -> None:
    for number, warmup in enumerate(warmups):
        entry = config.model_warmup.add(name=f"warmup-{number}", batch_size=1)
        for name, wanted in warmup.inputs.items():
            tensor = entry.inputs[name]
            tensor.data_type = proto.DataType.Value(triton_type(wanted.data_type))
            tensor.dims.extend(wanted.dims)
            if wanted.fill == "File" and wanted.file:
                tensor.input_data_file = wanted.file
            elif wanted.fill == "Random":
                tensor.random_data = True
            else:
                tensor.zero_data = True


def triton_type(data_type: str) -> str:
    """Return model_config.proto's name of a protocol data type."""
    return "TYPE_STRING" if data_type == "BYTES" else f"TYPE_{data_type}"


def _other_fields(config: proto.ModelConfig, model: Model) -> None:
    """Merge `config`: a field named there replaces the base's whole field."""
    wanted = model.config or {}
    fields = proto.ModelConfig.DESCRIPTOR.fields_by_name
    for name in wanted:
        if name in fields:
            config.ClearField(name)
    try:
        json_format.ParseDict(wanted, config)
    except json_format.ParseError as error:
        raise _invalid(f"config is not Triton's ModelConfig: {error}") from error


def _invalid(words: str) -> ModelError:
    return ModelError(Reason.MODEL_CONFIG_INVALID, words)
