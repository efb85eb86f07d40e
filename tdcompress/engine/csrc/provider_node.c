/* From an EPContext node to a compiled node: its attributes, its plan, and which input and output of the plan is which. */
#include <stdlib.h>
#include <string.h>

#include "provider.h"

static const struct {
    int64_t type;
    ONNXTensorElementDataType onnx, also;
    int64_t bytes;
} ELEMENTS[] = {
    {TDC_FLOAT32, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, 4},
    {TDC_UINT8, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, 1},
    {TDC_INT8, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8, 1},
    {TDC_INT32, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, 4},
    {TDC_INT64, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, 8},
    {TDC_FLOAT64, ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE, ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE, 8},
};

typedef OrtStatus *get_count(const OrtNode *node, size_t *count);
typedef OrtStatus *get_values(const OrtNode *node, const OrtValueInfo **values, size_t count);

/* What a node reads or writes. */
typedef struct {
    const OrtValueInfo **values;
    size_t count;
} node_values;

/* A text attribute's length, 0 if it is not set. */
static OrtStatus *text_length(const OrtApi *ort, const OrtOpAttr *attribute, size_t *bytes) {
    char none;
    *bytes = 0;
    if (attribute == NULL) return NULL;
    OrtStatus *const status = ort->ReadOpAttr(attribute, ORT_OP_ATTR_STRING, &none, 0, bytes);
    if (*bytes == 0) return status; /* no text */
    ort->ReleaseStatus(status);     /* too short, of course */
    return NULL;
}

/* A text attribute in memory of its own, aligned as plans are fast, with a 0 behind it. NULL and 0 bytes if it is empty or not set. */
static OrtStatus *get_text(const OrtApi *ort, const OrtNode *node, const char *name, char **text, size_t *bytes) {
    const OrtOpAttr *attribute = NULL;
    *text = NULL;
    TRY(ort->Node_GetAttributeByName(node, name, &attribute));
    TRY(text_length(ort, attribute, bytes));
    if (*bytes == 0) return NULL;
    void *memory;
    if (posix_memalign(&memory, 64, *bytes + 1) != 0) return ort->CreateStatus(ORT_FAIL, "tdcompress: not enough memory");
    OrtStatus *const status = ort->ReadOpAttr(attribute, ORT_OP_ATTR_STRING, memory, *bytes, bytes);
    if (status != NULL) {
        free(memory);
        return status;
    }
    *text = memory;
    (*text)[*bytes] = 0;
    return NULL;
}

static OrtStatus *get_flag(const OrtApi *ort, const OrtNode *node, const char *name, int64_t *value) {
    const OrtOpAttr *attribute = NULL;
    size_t bytes;
    TRY(ort->Node_GetAttributeByName(node, name, &attribute));
    *value = 1; /* the operator's default */
    return attribute == NULL ? NULL : ort->ReadOpAttr(attribute, ORT_OP_ATTR_INT, value, sizeof *value, &bytes);
}

OrtStatus *provider_takes(const OrtApi *ort, const OrtNode *node, int *taken) {
    const char *type, *domain;
    *taken = 0;
    TRY(ort->Node_GetOperatorType(node, &type));
    TRY(ort->Node_GetDomain(node, &domain));
    if (strcmp(type, "EPContext") != 0 || strcmp(domain, "com.microsoft") != 0) return NULL;
    char *source;
    size_t bytes;
    TRY(get_text(ort, node, "source", &source, &bytes));
    *taken = source != NULL && strcmp(source, PROVIDER_NAME) == 0;
    free(source);
    return NULL;
}

static OrtStatus *read_values(const OrtApi *ort, const OrtNode *node, get_count *counted, get_values *got, node_values *read) {
    TRY(counted(node, &read->count));
    read->values = calloc(read->count + 1, sizeof *read->values);
    if (read->values == NULL) return ort->CreateStatus(ORT_FAIL, "tdcompress: not enough memory");
    return got(node, read->values, read->count);
}

/* Whether a value's elements are what a plan has there. */
static OrtStatus *check_type(const provider_node *node, const OrtValueInfo *value, provider_port *port) {
    const OrtApi *const ort = node->ort;
    const OrtTypeInfo *type;
    const OrtTensorTypeAndShapeInfo *tensor = NULL;
    TRY(ort->GetValueInfoTypeInfo(value, &type));
    TRY(ort->CastTypeInfoToTensorInfo(type, &tensor));
    ONNXTensorElementDataType found = 0;
    if (tensor != NULL) TRY(ort->GetTensorElementType(tensor, &found));
    for (size_t i = 0; i < sizeof ELEMENTS / sizeof *ELEMENTS; i++) {
        if (ELEMENTS[i].type != port->array.type || (found != ELEMENTS[i].onnx && found != ELEMENTS[i].also)) continue;
        port->image_bytes = port->array.elements * ELEMENTS[i].bytes;
        return NULL;
    }
    return provider_error(ort, ORT_INVALID_GRAPH, node->label, port->array.name, "the plan has another element type there");
}

/* One input or output of the plan: which of the fused node's values it is. Those have the names that they have at the context node. */
static OrtStatus *bind(const provider_node *node, const OrtValueInfo *value, const node_values *fused, provider_port *port) {
    const OrtApi *const ort = node->ort;
    const char *name, *other;
    if (value == NULL) return provider_error(ort, ORT_INVALID_GRAPH, node->label, port->array.name, "it is not connected");
    TRY(ort->GetValueInfoName(value, &name));
    for (port->index = 0; port->index < fused->count; port->index++) {
        TRY(ort->GetValueInfoName(fused->values[port->index], &other));
        if (strcmp(name, other) == 0) return check_type(node, value, port);
    }
    return provider_error(ort, ORT_INVALID_GRAPH, node->label, port->array.name, "nothing reads it; make it an output of the graph");
}

/* All inputs, or all outputs. */
static OrtStatus *bind_all(const provider_node *node, int kind, const node_values *own, const node_values *fused, provider_port *ports) {
    const int64_t count = tdc_count(node->model, kind);
    if ((int64_t)own->count != count)
        return provider_error(node->ort, ORT_INVALID_GRAPH, node->label, kind == TDC_INPUT ? "inputs" : "outputs", "the plan has more or fewer");
    for (int64_t i = 0; i < count; i++) {
        tdc_shape(node->model, kind, i, &ports[i].array);
        TRY(bind(node, own->values[i], fused, &ports[i]));
    }
    return NULL;
}

static OrtStatus *connect(const provider_node *node, const OrtNode *context, const OrtNode *fused, int kind, provider_port *ports) {
    const OrtApi *const ort = node->ort;
    get_count *const counted = kind == TDC_INPUT ? ort->Node_GetNumInputs : ort->Node_GetNumOutputs;
    get_values *const got = kind == TDC_INPUT ? ort->Node_GetInputs : ort->Node_GetOutputs;
    node_values own = {NULL, 0}, theirs = {NULL, 0};
    OrtStatus *status = read_values(ort, context, counted, got, &own);
    if (status == NULL) status = read_values(ort, fused, counted, got, &theirs);
    if (status == NULL) status = bind_all(node, kind, &own, &theirs, ports);
    free(own.values);
    free(theirs.values);
    return status;
}

/* Fill in a node that is all zeros; whatever was made belongs to it, also where this fails. */
static OrtStatus *load(provider_node *node, const OrtNode *context, const OrtNode *fused) {
    const OrtApi *const ort = node->ort;
    const char *name;
    int64_t embedded, whole;
    char *plan;
    size_t bytes;
    TRY(ort->Node_GetName(context, &name));
    node->label = strdup(name);
    node->idle = calloc(1, sizeof *node->idle);
    if (node->label == NULL || node->idle == NULL) return ort->CreateStatus(ORT_FAIL, "tdcompress: not enough memory");
    TRY(get_flag(ort, context, "embed_mode", &embedded));
    TRY(get_flag(ort, context, "main_context", &whole));
    if (embedded != 1 || whole != 1)
        return provider_error(ort, ORT_NOT_IMPLEMENTED, node->label, "embed_mode and main_context", "the plan has to be in the node: both are 1");
    TRY(get_text(ort, context, "ep_cache_context", &plan, &bytes));
    node->plan = plan;
    const int status = plan == NULL ? TDC_ERROR_FORMAT : tdc_load_memory(plan, bytes, &node->idle[0]);
    if (status != TDC_OK) return provider_error(ort, ORT_INVALID_GRAPH, node->label, "ep_cache_context", tdc_message(status));
    node->model = node->idle[0];
    node->idle_count = node->handle_count = 1;
    node->input_count = tdc_count(node->model, TDC_INPUT);
    node->output_count = tdc_count(node->model, TDC_OUTPUT);
    TRY(connect(node, context, fused, TDC_INPUT, node->ports));
    return connect(node, context, fused, TDC_OUTPUT, node->ports + node->input_count);
}

static OrtStatus *create_state(OrtNodeComputeInfo *self, OrtNodeComputeContext *context, void **state) {
    (void)self, (void)context;
    *state = NULL; /* the node has all of it */
    return NULL;
}

static void release_state(OrtNodeComputeInfo *self, void *state) {
    (void)self, (void)state;
}

OrtStatus *provider_node_make(const OrtApi *ort, const OrtNode *context, const OrtNode *fused, provider_node **made) {
    provider_node *const node = calloc(1, sizeof *node);
    if (node == NULL || pthread_mutex_init(&node->lock, NULL) != 0) {
        free(node);
        return ort->CreateStatus(ORT_FAIL, "tdcompress: not enough memory");
    }
    node->ort = ort;
    node->info = (OrtNodeComputeInfo){
        .ort_version_supported = PROVIDER_API,
        .CreateState = create_state,
        .Compute = provider_compute,
        .ReleaseState = release_state,
    };
    OrtStatus *const status = load(node, context, fused);
    if (status != NULL)
        provider_node_free(node);
    else
        *made = node;
    return status;
}

void provider_node_free(provider_node *node) {
    if (node == NULL) return;
    for (size_t i = 0; i < node->idle_count; i++) tdc_free(node->idle[i]);
    pthread_mutex_destroy(&node->lock);
    free(node->idle);
    free(node->plan);
    free(node->label);
    free(node);
}
