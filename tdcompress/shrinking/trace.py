"""A network as a list of aten operators: torch.export in eval mode, with the names of its parameters."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind

from tdcompress.errors import UnsupportedError, one_line
from tdcompress.shrinking.duplicate import duplicate
from tdcompress.shrinking.returned import trees_returned
from tdcompress.sparsity.examples import example_tensors
from tdcompress.sparsity.units import require_module, require_values

ExampleInputs = Tensor | Sequence[Tensor]
"""A batch: a tensor, or one for each argument of the network, of shapes that it takes."""

_ASSERTIONS = (torch.ops.aten._assert_tensor_metadata.default,)  # of casts: they compute nothing


@dataclass(frozen=True, kw_only=True)
class Program:
    """One forward pass in eval mode, operator by operator.

    Attributes:
        nodes: the operators in the order they run; ``node.meta["val"]`` has the shapes.
        tensors: name of a placeholder, or of a cast of one -> qualified name of the parameter or buffer (of tied ones the first).
        state: those tensors, and the literal tensors of the forward code, by the names in ``tensors``; of any shape.
        narrowable: the names in ``tensors`` that a module owns, so that surgery can replace them.
        outputs: the nodes that the network returns.
    """

    nodes: tuple[fx.Node, ...]
    tensors: Mapping[str, str]
    state: Mapping[str, Tensor]
    narrowable: frozenset[str]
    outputs: tuple[fx.Node, ...]

    def calls(self) -> Iterator[fx.Node]:
        """The nodes that compute: no placeholders, no casts of parameters, no output."""
        return (node for node in self.nodes if node.op == "call_function" and node.name not in self.tensors)


def as_tuple(example_inputs: ExampleInputs) -> tuple[Tensor, ...]:
    """The positional inputs of a network.

    Raises:
        ModelError: see ``example_tensors``.
    """
    return tuple(
        item.clone() if item.is_inference() else item for item in example_tensors(example_inputs)
    )  # a clone can be traced


def trace(model: nn.Module, example_inputs: ExampleInputs, *, training: bool = False) -> Program:
    """Export a copy of a network, in eval or train mode, and name its tensors.

    In-place operators on plain values are kept (the caller rebinds their target). If one writes into a view, or into a value that
    has views, the program is functionalised first.

    Args:
        model: on any device; not changed.
        example_inputs: a batch as it takes it.
        training: trace in train mode.

    Raises:
        ModelError: no network, one without values, or no example inputs.
        UnsupportedError: torch.export does not accept the network; the message is its own, in one line.
    """
    require_module(model)
    require_values(model)
    inputs = as_tuple(example_inputs)
    model = duplicate(model).train(training)
    try:
        with _quiet(), unfused(), trees_returned(model):
            exported = torch.export.export(model, inputs, strict=False)
            blocks = [block.graph for block in exported.graph_module.children() if isinstance(block, fx.GraphModule)]
            if _writes_into_views(exported.graph) or any(map(_writes, blocks)):
                exported = exported.run_decompositions({})
    except Exception as error:  # torch.export raises dozens of types, user code any
        raise UnsupportedError(
            f"torch.export cannot trace {type(model).__name__}: {type(error).__name__}: {one_line(error)}"
        ) from error
    first_name = first_names(model)
    tensors, state, narrowable = {}, {}, set()
    owned = owned_tensors(model)
    for spec in exported.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT or spec.target is None:
            continue
        name = first_name.get(spec.target, spec.target)
        tensors[spec.arg.name] = name
        if spec.target in owned:
            narrowable.add(name)
            state[name] = owned[spec.target]
        else:
            value = exported.constants.get(spec.target)
            if isinstance(value, Tensor):
                state[name] = value
    nodes = tuple(node for node in _inlined(exported.graph_module).nodes if node.target not in _ASSERTIONS)
    for node in nodes:
        if _casts(node) and node.all_input_nodes[0].name in tensors:
            tensors[node.name] = tensors[node.all_input_nodes[0].name]
    # A functionalised program also returns what it mutates; those nodes count as outputs, which is safe.
    outputs = tuple(node for node in nodes[-1].all_input_nodes)
    return Program(nodes=nodes, tensors=tensors, state=state, narrowable=frozenset(narrowable), outputs=outputs)


@contextlib.contextmanager
def unfused() -> Iterator[None]:
    """Keep nn.TransformerEncoder from its fused path, whose nested tensors and operators nothing here can see into."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def unused(model: nn.Module, program: Program) -> list[str]:
    """Parameters that the forward pass does not read: heads that only training has."""
    first_name = first_names(model)
    used = {program.tensors[node.name] for node in program.nodes if node.name in program.tensors and node.users}
    return [name for name, _ in model.named_parameters() if first_name[name] not in used]


def code_place(node: fx.Node) -> str:
    """Where in the user's code an operator stands: "layer1.0 (resnet.py:93)"."""
    module = module_of(node)
    file, line = source_line(node)
    where = f"{file.rsplit('/', 1)[-1]}:{line}" if file else "unknown line"
    return f"{module} ({where})" if module else where


def module_of(node: fx.Node) -> str:
    """Name of the innermost module that an operator stands in; "" for the network itself."""
    modules = list(node.meta.get("nn_module_stack", {}).values())
    return modules[-1][0] if modules else ""


def source_line(node: fx.Node) -> tuple[str, int]:
    """File and line of the innermost Python frame that called the operator; ("", 0) where unknown."""
    lines = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines()]
    frames = [line for line in lines if line.startswith('File "')]
    if not frames:
        return "", 0
    file, _, rest = frames[-1][len('File "') :].partition('", line ')
    return file, int(rest.split(",")[0])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's log lines and dumps of graphs from the user, in the whole process; what counts is in the exception.

    A trial that fails is part of finding sizes written as numbers, and torch.export tells each in dozens of lines.
    """
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The tensor attribute", UserWarning)  # recurrent layers list their weights anew
            # torch 2.11's own run_decompositions asks in the way that it warns of
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        logging.disable(level)


def _casts(node: fx.Node) -> bool:
    """Whether an operator changes the precision of a tensor, and nothing else."""
    if getattr(node.target, "_opname", "") not in ("to", "_to_copy"):
        return False
    return all(item.meta["val"].is_floating_point() for item in (node, *node.all_input_nodes))


def _inlined(module: fx.GraphModule) -> fx.Graph:
    """A program's graph, with what stands under ``torch.autocast`` or ``torch.no_grad`` in its place."""
    graph = module.graph
    for node in list(graph.nodes):
        if node.target not in (torch.ops.higher_order.wrap_with_autocast, torch.ops.higher_order.wrap_with_set_grad_enabled):
            continue
        at = next(i for i, item in enumerate(node.args) if isinstance(item, fx.Node) and item.op == "get_attr")
        body = _inlined(getattr(module, node.args[at].target))
        operands = dict(zip(body.find_nodes(op="placeholder"), node.args[at + 1 :], strict=True))
        with graph.inserting_before(node):
            results = graph.graph_copy(body, operands)
        for user in list(node.users):  # operator.getitem
            user.replace_all_uses_with(results[user.args[1]])  # type: ignore[index]
            graph.erase_node(user)
        graph.erase_node(node)
    return graph


def owned_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by every name that they have."""
    return {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}


def first_names(model: nn.Module) -> dict[str, str]:
    """Qualified name -> the first qualified name of the same tensor (tied weights)."""
    first: dict[int, str] = {}
    names: dict[str, str] = {}
    for members in (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)):
        for name, tensor in members:
            names[name] = first.setdefault(id(tensor), name)
    return names


def _writes_into_views(graph: fx.Graph) -> bool:
    """Whether an in-place operator writes to a view, or to a value of which there are views."""
    views: set[fx.Node] = set()
    for node in graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is None or not node.args or not isinstance(node.args[0], fx.Node):
            continue
        alias = schema.arguments[0].alias_info
        if alias is None:
            continue
        if alias.is_write:
            if node.args[0] in views and not _drops_nothing(node):
                return True
        elif any(result.alias_info is not None for result in schema.returns):
            views.update((node, node.args[0]))
    return False


def _writes(graph: fx.Graph) -> bool:
    """Whether there is an in-place operator at all; what a block writes into may have views outside."""
    schemas = (getattr(node.target, "_schema", None) for node in graph.nodes)
    return any(schema is not None and schema.is_mutable for schema in schemas)


def _drops_nothing(node: fx.Node) -> bool:
    """Whether an in-place operator is dropout in eval mode, as classifiers have it behind a flatten."""
    return "dropout" in str(node.target) and node.args[-1] is False
