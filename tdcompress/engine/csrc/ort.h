/* What provider.c needs of onnxruntime's binary interface, which is part of no package that a Python user has (the header is of 380 KB, and a
 * wheel comes without it). The interface may only grow at its ends: a plugin asks for the version it was written for, and tables and structures
 * of that version stay as they are. Here: version 23, of onnxruntime 1.23. `make provider` compiles provider.c with onnxruntime's own header
 * too, and compares the machine code.
 *
 * Functions give NULL, or a status that is the caller's to release. Members named from_N are functions that are not called, the first
 * of them number N of its table. */
#ifndef TDC_ORT_H
#define TDC_ORT_H

#include <stddef.h>
#include <stdint.h>

typedef struct OrtStatus OrtStatus;
typedef struct OrtValue OrtValue;
typedef struct OrtValueInfo OrtValueInfo;
typedef struct OrtTypeInfo OrtTypeInfo;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtNode OrtNode;
typedef struct OrtGraph OrtGraph;
typedef struct OrtOpAttr OrtOpAttr;
typedef struct OrtLogger OrtLogger;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtKeyValuePairs OrtKeyValuePairs;
typedef struct OrtHardwareDevice OrtHardwareDevice;
typedef struct OrtEpDevice OrtEpDevice;
typedef struct OrtEpGraphSupportInfo OrtEpGraphSupportInfo;
typedef struct OrtNodeFusionOptions OrtNodeFusionOptions;
typedef struct OrtNodeComputeContext OrtNodeComputeContext;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtMemoryDevice OrtMemoryDevice;
typedef struct OrtAllocator OrtAllocator;
typedef struct OrtDataTransferImpl OrtDataTransferImpl;
typedef struct OrtSyncStreamImpl OrtSyncStreamImpl;
typedef struct OrtEpApi OrtEpApi;
typedef struct OrtEp OrtEp;
typedef struct OrtEpFactory OrtEpFactory;
typedef struct OrtNodeComputeInfo OrtNodeComputeInfo;

typedef enum { ORT_FAIL = 1, ORT_INVALID_ARGUMENT = 2, ORT_NOT_IMPLEMENTED = 9, ORT_INVALID_GRAPH = 10, ORT_EP_FAIL = 11 } OrtErrorCode;
typedef enum { ORT_OP_ATTR_INT = 1, ORT_OP_ATTR_STRING = 5 } OrtOpAttrType;
typedef enum { OrtHardwareDeviceType_CPU } OrtHardwareDeviceType;
typedef enum { OrtCompiledModelCompatibility_EP_NOT_APPLICABLE } OrtCompiledModelCompatibility;
typedef enum ONNXTensorElementDataType {
    ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 = 2,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8 = 3,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32 = 6,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 = 7,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL = 9,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE = 11
} ONNXTensorElementDataType;

typedef void (*ort_skipped)(void);

/* What programs call, and plugins with them. */
typedef struct {
    OrtStatus *(*CreateStatus)(OrtErrorCode code, const char *message);
    ort_skipped from_1[50];
    OrtStatus *(*GetTensorMutableData)(OrtValue *value, void **data);
    ort_skipped from_52[3];
    OrtStatus *(*CastTypeInfoToTensorInfo)(const OrtTypeInfo *type, const OrtTensorTypeAndShapeInfo **tensor); /* NULL: no tensor */
    ort_skipped from_56[4];
    OrtStatus *(*GetTensorElementType)(const OrtTensorTypeAndShapeInfo *tensor, ONNXTensorElementDataType *type);
    OrtStatus *(*GetDimensionsCount)(const OrtTensorTypeAndShapeInfo *tensor, size_t *count);
    OrtStatus *(*GetDimensions)(const OrtTensorTypeAndShapeInfo *tensor, int64_t *dims, size_t count);
    ort_skipped from_63[2];
    OrtStatus *(*GetTensorTypeAndShape)(const OrtValue *value, OrtTensorTypeAndShapeInfo **tensor);
    ort_skipped from_66[24];
    OrtStatus *(*KernelContext_GetInput)(const OrtKernelContext *context, size_t index, const OrtValue **value);
    OrtStatus *(*KernelContext_GetOutput)(OrtKernelContext *context, size_t index, const int64_t *dims, size_t count, OrtValue **value);
    ort_skipped from_92[1];
    void (*ReleaseStatus)(OrtStatus *status);
    ort_skipped from_94[5];
    void (*ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo *tensor);
    ort_skipped from_100[172];
    OrtStatus *(*ReadOpAttr)(const OrtOpAttr *attribute, OrtOpAttrType type, void *data, size_t bytes, size_t *needed);
    ort_skipped from_273[1];
    OrtStatus *(*KernelContext_ParallelFor)(const OrtKernelContext *context, void (*task)(void *, size_t), size_t tasks, size_t batches, void *data);
    ort_skipped from_275[14];
    OrtStatus *(*GetValueInfoName)(const OrtValueInfo *value, const char **name);
    OrtStatus *(*GetValueInfoTypeInfo)(const OrtValueInfo *value, const OrtTypeInfo **type);
    ort_skipped from_291[16];
    OrtHardwareDeviceType (*HardwareDevice_Type)(const OrtHardwareDevice *device);
    ort_skipped from_308[9];
    const OrtEpApi *(*GetEpApi)(); /* so in the header: no prototype */
    ort_skipped from_318[26];
    OrtStatus *(*Graph_GetNumNodes)(const OrtGraph *graph, size_t *count);
    OrtStatus *(*Graph_GetNodes)(const OrtGraph *graph, const OrtNode **nodes, size_t count);
    ort_skipped from_346[3];
    OrtStatus *(*Node_GetName)(const OrtNode *node, const char **name);
    OrtStatus *(*Node_GetOperatorType)(const OrtNode *node, const char **type);
    OrtStatus *(*Node_GetDomain)(const OrtNode *node, const char **domain);
    ort_skipped from_352[1];
    OrtStatus *(*Node_GetNumInputs)(const OrtNode *node, size_t *count);
    OrtStatus *(*Node_GetInputs)(const OrtNode *node, const OrtValueInfo **values, size_t count);
    OrtStatus *(*Node_GetNumOutputs)(const OrtNode *node, size_t *count);
    OrtStatus *(*Node_GetOutputs)(const OrtNode *node, const OrtValueInfo **values, size_t count);
    ort_skipped from_357[4];
    OrtStatus *(*Node_GetAttributeByName)(const OrtNode *node, const char *name, const OrtOpAttr **attribute); /* NULL: not set */
} OrtApi;

typedef struct {
    const OrtApi *(*GetApi)(uint32_t version); /* NULL: older than that */
    const char *(*GetVersionString)(void);
} OrtApiBase;

/* What plugins call. */
struct OrtEpApi {
    OrtStatus *(*CreateEpDevice)(OrtEpFactory *factory, const OrtHardwareDevice *device, const OrtKeyValuePairs *metadata,
                                 const OrtKeyValuePairs *options, OrtEpDevice **made);
    ort_skipped from_1[1];
    OrtStatus *(*EpGraphSupportInfo_AddNodesToFuse)(OrtEpGraphSupportInfo *support, const OrtNode *const *nodes, size_t count,
                                                    const OrtNodeFusionOptions *options);
};

/* What plugins give: one compiled node. */
struct OrtNodeComputeInfo {
    uint32_t ort_version_supported;
    OrtStatus *(*CreateState)(OrtNodeComputeInfo *self, OrtNodeComputeContext *context, void **state);
    OrtStatus *(*Compute)(OrtNodeComputeInfo *self, void *state, OrtKernelContext *context);
    void (*ReleaseState)(OrtNodeComputeInfo *self, void *state);
};

/* A provider in one session. */
struct OrtEp {
    uint32_t ort_version_supported;
    const char *(*GetName)(const OrtEp *self);
    OrtStatus *(*GetCapability)(OrtEp *self, const OrtGraph *graph, OrtEpGraphSupportInfo *support);
    OrtStatus *(*Compile)(OrtEp *self, const OrtGraph **graphs, const OrtNode **fused_nodes, size_t count, OrtNodeComputeInfo **made,
                          OrtNode **contexts);
    void (*ReleaseNodeComputeInfos)(OrtEp *self, OrtNodeComputeInfo **made, size_t count);
    ort_skipped optional[8]; /* NULL: as the processor's own provider does it */
};

/* A plugin: every function has to be there. */
struct OrtEpFactory {
    uint32_t ort_version_supported;
    const char *(*GetName)(const OrtEpFactory *self);
    const char *(*GetVendor)(const OrtEpFactory *self);
    OrtStatus *(*GetSupportedDevices)(OrtEpFactory *self, const OrtHardwareDevice *const *devices, size_t count, OrtEpDevice **made, size_t most,
                                      size_t *made_count);
    OrtStatus *(*CreateEp)(OrtEpFactory *self, const OrtHardwareDevice *const *devices, const OrtKeyValuePairs *const *metadata, size_t count,
                           const OrtSessionOptions *options, const OrtLogger *logger, OrtEp **made);
    void (*ReleaseEp)(OrtEpFactory *self, OrtEp *ep);
    uint32_t (*GetVendorId)(const OrtEpFactory *self);
    const char *(*GetVersion)(const OrtEpFactory *self);
    OrtStatus *(*ValidateCompiledModelCompatibilityInfo)(OrtEpFactory *self, const OrtHardwareDevice *const *devices, size_t count,
                                                         const char *information, OrtCompiledModelCompatibility *found);
    OrtStatus *(*CreateAllocator)(OrtEpFactory *self, const OrtMemoryInfo *memory, const OrtKeyValuePairs *options, OrtAllocator **made);
    void (*ReleaseAllocator)(OrtEpFactory *self, OrtAllocator *allocator);
    OrtStatus *(*CreateDataTransfer)(OrtEpFactory *self, OrtDataTransferImpl **made);
    _Bool (*IsStreamAware)(const OrtEpFactory *self);
    OrtStatus *(*CreateSyncStreamForDevice)(OrtEpFactory *self, const OrtMemoryDevice *device, const OrtKeyValuePairs *options,
                                            OrtSyncStreamImpl **made);
};

#endif
