/* A plugin execution provider of onnxruntime: it runs models that `tdcompress compile model.onnx compiled.onnx` made. Such a file has one node
 * of the operator EPContext (domain com.microsoft) with a plan inside. provider.c is the plugin; provider_node.c makes a compiled node of such
 * a node; provider_run.c runs it. */
#ifndef TDC_PROVIDER_H
#define TDC_PROVIDER_H

#include <pthread.h>

#include "plan.h"
#ifdef ONNXRUNTIME_HEADER /* see ort.h */
#include ONNXRUNTIME_HEADER
#else
#include "ort.h"
#endif

#define PROVIDER_NAME "TdcompressExecutionProvider" /* also the `source` of its nodes: engine/provider.py */
#define PROVIDER_API 23                             /* what ort.h is a part of */

/* Give a status back to the caller, if there is one. */
#define TRY(call)                               \
    do {                                        \
        OrtStatus *const status_ = (call);      \
        if (status_ != NULL) return status_;    \
    } while (0)

typedef struct {
    tdc_array array;
    int64_t image_bytes;
    size_t index; /* among what onnxruntime hands to the node, or takes from it */
} provider_port;

/* One compiled node: a plan, and the handles of it that are not at work. */
typedef struct {
    OrtNodeComputeInfo info; /* onnxruntime knows it by this */
    const OrtApi *ort;
    char *label; /* the node's name */
    void *plan;
    int64_t input_count, output_count;
    provider_port ports[MAX_SPACES]; /* inputs, then outputs */
    pthread_mutex_t lock;
    const tdc_model *model; /* one of the handles */
    tdc_model **idle;
    size_t idle_count, handle_count;
} provider_node;

/* Whether a node of a graph has a plan of ours. */
OrtStatus *provider_takes(const OrtApi *ort, const OrtNode *node, int *taken);

/* The compiled node for `context`, an EPContext node of ours; `fused` is how onnxruntime calls it. */
OrtStatus *provider_node_make(const OrtApi *ort, const OrtNode *context, const OrtNode *fused, provider_node **made);

void provider_node_free(provider_node *node);

/* OrtNodeComputeInfo.Compute: any number of calls at the same time. */
OrtStatus *provider_compute(OrtNodeComputeInfo *self, void *state, OrtKernelContext *context);

/* A status in words: node, what it is about, what is wrong. */
OrtStatus *provider_error(const OrtApi *ort, OrtErrorCode code, const char *label, const char *subject, const char *message);

#endif
