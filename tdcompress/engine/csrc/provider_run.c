/* One call of a compiled node: its images go to the threads of the session, each of which takes a handle of the plan. */
#include <stdatomic.h>
#include <stdlib.h>

#include "provider.h"

/* A call in progress: where the first image's inputs and outputs lie. */
typedef struct {
    provider_node *node;
    char *memory[MAX_SPACES]; /* as node->ports */
    _Atomic int status;
} provider_call;

/* A handle that nobody else has. */
static int take(provider_node *node, tdc_model **handle) {
    int status = TDC_OK;
    pthread_mutex_lock(&node->lock);
    if (node->idle_count > 0) {
        *handle = node->idle[--node->idle_count];
    } else {
        tdc_model **const larger = realloc(node->idle, (node->handle_count + 1) * sizeof *larger); /* room for all to come back */
        if (larger != NULL) node->idle = larger;
        status = larger == NULL ? TDC_ERROR_MEMORY : tdc_share(node->model, handle);
        node->handle_count += status == TDC_OK;
    }
    pthread_mutex_unlock(&node->lock);
    return status;
}

static void give_back(provider_node *node, tdc_model *handle) {
    pthread_mutex_lock(&node->lock);
    node->idle[node->idle_count++] = handle;
    pthread_mutex_unlock(&node->lock);
}

static void run_images(provider_call *call, int64_t first, int64_t images) {
    provider_node *const node = call->node;
    const void *inputs[MAX_SPACES];
    float *outputs[MAX_SPACES];
    for (int64_t i = 0; i < node->input_count; i++) inputs[i] = call->memory[i] + first * node->ports[i].image_bytes;
    for (int64_t i = 0; i < node->output_count; i++) {
        const int64_t port = node->input_count + i;
        outputs[i] = (float *)(call->memory[port] + first * node->ports[port].image_bytes);
    }
    tdc_model *handle;
    int status = take(node, &handle);
    if (status == TDC_OK) {
        status = tdc_run(handle, inputs, outputs, images);
        give_back(node, handle);
    }
    if (status != TDC_OK) atomic_store(&call->status, status);
}

static void run_image(void *call, size_t image) {
    run_images(call, (int64_t)image, 1);
}

/* The batch size of an input, if its other sizes are the plan's; -1 if not. */
static OrtStatus *images_of(const OrtApi *ort, const tdc_array *array, const OrtTensorTypeAndShapeInfo *shape, int64_t *images) {
    int64_t dims[PORT_DIMS];
    size_t count;
    *images = -1;
    TRY(ort->GetDimensionsCount(shape, &count));
    if ((int64_t)count != array->ndim) return NULL;
    TRY(ort->GetDimensions(shape, dims, count));
    for (size_t i = 1; i < count; i++)
        if (dims[i] != array->dims[i]) return NULL;
    if (array->dims[0] == 0 || array->dims[0] == dims[0]) *images = dims[0];
    return NULL;
}

static OrtStatus *read_input(const provider_node *node, const OrtKernelContext *context, int64_t i, provider_call *call, int64_t *images) {
    const OrtApi *const ort = node->ort;
    const provider_port *const port = &node->ports[i];
    const OrtValue *value = NULL;
    OrtTensorTypeAndShapeInfo *shape;
    TRY(ort->KernelContext_GetInput(context, port->index, &value));
    if (value == NULL) return provider_error(ort, ORT_INVALID_ARGUMENT, node->label, port->array.name, "it is missing");
    TRY(ort->GetTensorTypeAndShape(value, &shape));
    int64_t found;
    OrtStatus *const status = images_of(ort, &port->array, shape, &found);
    ort->ReleaseTensorTypeAndShapeInfo(shape);
    if (status != NULL) return status;
    if (found < 0 || (i > 0 && found != *images))
        return provider_error(ort, ORT_INVALID_ARGUMENT, node->label, port->array.name,
                              "another shape than the model was compiled for; compile it for this one (--shape)");
    *images = found;
    return ort->GetTensorMutableData((OrtValue *)value, (void **)&call->memory[i]);
}

static OrtStatus *make_output(const provider_node *node, OrtKernelContext *context, int64_t i, provider_call *call, int64_t images) {
    const provider_port *const port = &node->ports[i];
    int64_t dims[PORT_DIMS] = {images};
    OrtValue *value = NULL;
    for (int64_t axis = 1; axis < port->array.ndim; axis++) dims[axis] = port->array.dims[axis];
    TRY(node->ort->KernelContext_GetOutput(context, port->index, dims, (size_t)port->array.ndim, &value));
    return node->ort->GetTensorMutableData(value, (void **)&call->memory[i]);
}

OrtStatus *provider_compute(OrtNodeComputeInfo *self, void *state, OrtKernelContext *context) {
    (void)state;
    provider_node *const node = (provider_node *)self;
    provider_call call = {.node = node};
    int64_t images = 0;
    for (int64_t i = 0; i < node->input_count; i++) TRY(read_input(node, context, i, &call, &images));
    for (int64_t i = 0; i < node->output_count; i++) TRY(make_output(node, context, node->input_count + i, &call, images));
    if (images == 1 || node->ports[0].array.dims[0] != 0) /* a fixed batch is run as a whole */
        run_images(&call, 0, images);
    else if (images > 1)
        TRY(node->ort->KernelContext_ParallelFor(context, run_image, (size_t)images, 0, &call));
    const int status = atomic_load(&call.status);
    return status == TDC_OK ? NULL : provider_error(node->ort, ORT_INVALID_ARGUMENT, node->label, "run", tdc_message(status));
}
