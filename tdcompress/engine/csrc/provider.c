/* The plugin as onnxruntime sees it: two exported functions, a factory, and a provider for each session. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "provider.h"

#define TEXT(number) #number
#define VERSION_TEXT(number) TEXT(number) ".0.0"

typedef struct {
    OrtEpFactory base;
    const OrtApi *ort;
} provider_factory;

typedef struct {
    OrtEp base;
    const OrtApi *ort;
} provider;

OrtStatus *provider_error(const OrtApi *ort, OrtErrorCode code, const char *label, const char *subject, const char *message) {
    char text[512];
    snprintf(text, sizeof text, "tdcompress: node %.120s: %.120s: %.240s", label, subject, message);
    return ort->CreateStatus(code, text);
}

static OrtStatus *out_of_memory(const OrtApi *ort) {
    return ort->CreateStatus(ORT_FAIL, "tdcompress: not enough memory");
}

/* All nodes of a graph, to be freed. */
static OrtStatus *get_nodes(const OrtApi *ort, const OrtGraph *graph, const OrtNode ***nodes, size_t *count) {
    TRY(ort->Graph_GetNumNodes(graph, count));
    *nodes = calloc(*count + 1, sizeof **nodes);
    if (*nodes == NULL) return out_of_memory(ort);
    OrtStatus *const status = ort->Graph_GetNodes(graph, *nodes, *count);
    if (status != NULL) free(*nodes);
    return status;
}

static const char *name_of_provider(const OrtEp *self) {
    (void)self;
    return PROVIDER_NAME;
}

static OrtStatus *claim(const OrtApi *ort, const OrtNode *const *nodes, size_t count, OrtEpGraphSupportInfo *support) {
    for (size_t i = 0; i < count; i++) {
        int taken;
        TRY(provider_takes(ort, nodes[i], &taken));
        if (taken) TRY(ort->GetEpApi()->EpGraphSupportInfo_AddNodesToFuse(support, &nodes[i], 1, NULL));
    }
    return NULL;
}

static OrtStatus *get_capability(OrtEp *self, const OrtGraph *graph, OrtEpGraphSupportInfo *support) {
    const OrtApi *const ort = ((provider *)self)->ort;
    const OrtNode **nodes;
    size_t count;
    TRY(get_nodes(ort, graph, &nodes, &count));
    OrtStatus *const status = claim(ort, nodes, count, support);
    free(nodes);
    return status;
}

static void release_nodes(OrtEp *self, OrtNodeComputeInfo **made, size_t count) {
    (void)self;
    for (size_t i = 0; i < count; i++) provider_node_free((provider_node *)made[i]);
}

static OrtStatus *compile_graph(const OrtApi *ort, const OrtGraph *graph, const OrtNode *fused, OrtNodeComputeInfo **made) {
    const OrtNode **nodes;
    size_t count;
    TRY(get_nodes(ort, graph, &nodes, &count));
    provider_node *node = NULL;
    OrtStatus *const status =
        count == 1 ? provider_node_make(ort, nodes[0], fused, &node) : ort->CreateStatus(ORT_EP_FAIL, "tdcompress: nodes were joined");
    free(nodes);
    *made = (OrtNodeComputeInfo *)node;
    return status;
}

static OrtStatus *compile(OrtEp *self, const OrtGraph **graphs, const OrtNode **fused_nodes, size_t count, OrtNodeComputeInfo **made,
                          OrtNode **contexts) {
    (void)contexts; /* they are what is being loaded */
    for (size_t i = 0; i < count; i++) {
        OrtStatus *const status = compile_graph(((provider *)self)->ort, graphs[i], fused_nodes[i], &made[i]);
        if (status == NULL) continue;
        release_nodes(self, made, i);
        memset(made, 0, count * sizeof *made);
        return status;
    }
    return NULL;
}

static const char *name_of_factory(const OrtEpFactory *self) {
    (void)self;
    return PROVIDER_NAME;
}

static const char *vendor(const OrtEpFactory *self) {
    (void)self;
    return "tdcompress";
}

static uint32_t vendor_id(const OrtEpFactory *self) {
    (void)self;
    return 0; /* no maker of hardware */
}

static const char *version(const OrtEpFactory *self) {
    (void)self;
    return VERSION_TEXT(TDC_PLAN_VERSION);
}

static OrtStatus *supported_devices(OrtEpFactory *self, const OrtHardwareDevice *const *devices, size_t count, OrtEpDevice **made, size_t most,
                                    size_t *made_count) {
    const OrtApi *const ort = ((provider_factory *)self)->ort;
    *made_count = 0;
    for (size_t i = 0; i < count && *made_count < most; i++) {
        if (ort->HardwareDevice_Type(devices[i]) != OrtHardwareDeviceType_CPU) continue;
        TRY(ort->GetEpApi()->CreateEpDevice(self, devices[i], NULL, NULL, &made[*made_count]));
        ++*made_count;
    }
    return NULL;
}

static OrtStatus *create_provider(OrtEpFactory *self, const OrtHardwareDevice *const *devices, const OrtKeyValuePairs *const *metadata,
                                  size_t count, const OrtSessionOptions *options, const OrtLogger *logger, OrtEp **made) {
    (void)devices, (void)metadata, (void)count, (void)options, (void)logger;
    const OrtApi *const ort = ((provider_factory *)self)->ort;
    provider *const ep = calloc(1, sizeof *ep);
    if (ep == NULL) return out_of_memory(ort);
    ep->ort = ort;
    ep->base = (OrtEp){
        .ort_version_supported = PROVIDER_API,
        .GetName = name_of_provider,
        .GetCapability = get_capability,
        .Compile = compile,
        .ReleaseNodeComputeInfos = release_nodes,
    };
    *made = &ep->base;
    return NULL;
}

static void release_provider(OrtEpFactory *self, OrtEp *ep) {
    (void)self;
    free(ep);
}

/* What a provider that works in ordinary memory leaves to onnxruntime. */

static OrtStatus *no_compatibility(OrtEpFactory *self, const OrtHardwareDevice *const *devices, size_t count, const char *information,
                                   OrtCompiledModelCompatibility *found) {
    (void)self, (void)devices, (void)count, (void)information;
    *found = OrtCompiledModelCompatibility_EP_NOT_APPLICABLE; /* files carry no such text: loading a plan tells */
    return NULL;
}

static OrtStatus *no_allocator(OrtEpFactory *self, const OrtMemoryInfo *memory, const OrtKeyValuePairs *options, OrtAllocator **made) {
    (void)self, (void)memory, (void)options;
    *made = NULL;
    return NULL;
}

static void release_no_allocator(OrtEpFactory *self, OrtAllocator *allocator) {
    (void)self, (void)allocator;
}

static OrtStatus *no_transfer(OrtEpFactory *self, OrtDataTransferImpl **made) {
    (void)self;
    *made = NULL;
    return NULL;
}

static _Bool is_stream_aware(const OrtEpFactory *self) {
    (void)self;
    return 0;
}

static OrtStatus *no_stream(OrtEpFactory *self, const OrtMemoryDevice *device, const OrtKeyValuePairs *options, OrtSyncStreamImpl **made) {
    (void)self, (void)device, (void)options;
    *made = NULL;
    return NULL;
}

/* onnxruntime calls this when a program registers the library. */
TDC_API OrtStatus *CreateEpFactories(const char *registered_name, const OrtApiBase *base, const OrtLogger *logger, OrtEpFactory **factories,
                                     size_t most, size_t *count) {
    (void)registered_name;
    const OrtApi *const ort = base->GetApi(PROVIDER_API);
    if (ort == NULL) /* whatever follows `base` may be something else there */
        return base->GetApi(1)->CreateStatus(ORT_FAIL, "tdcompress needs onnxruntime 1.23 or newer");
    (void)logger;
    if (most < 1) return ort->CreateStatus(ORT_INVALID_ARGUMENT, "tdcompress: no room for a factory");
    provider_factory *const factory = calloc(1, sizeof *factory);
    if (factory == NULL) return out_of_memory(ort);
    factory->ort = ort;
    factory->base = (OrtEpFactory){
        .ort_version_supported = PROVIDER_API,
        .GetName = name_of_factory,
        .GetVendor = vendor,
        .GetVendorId = vendor_id,
        .GetVersion = version,
        .GetSupportedDevices = supported_devices,
        .CreateEp = create_provider,
        .ReleaseEp = release_provider,
        .ValidateCompiledModelCompatibilityInfo = no_compatibility,
        .CreateAllocator = no_allocator,
        .ReleaseAllocator = release_no_allocator,
        .CreateDataTransfer = no_transfer,
        .IsStreamAware = is_stream_aware,
        .CreateSyncStreamForDevice = no_stream,
    };
    factories[0] = &factory->base;
    *count = 1;
    return NULL;
}

/* And this when it unregisters it, after its sessions. */
TDC_API OrtStatus *ReleaseEpFactory(OrtEpFactory *factory) {
    free(factory);
    return NULL;
}
