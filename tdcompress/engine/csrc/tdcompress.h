/* tdcompress: run a compiled model from C, C++ or any language that calls C. Needs no Python and no other file than the model's.
 *
 *     tdc_model *model;
 *     int status = tdc_load("model.tdc", &model);      made by: tdcompress compile model.onnx model.tdc
 *     if (status == TDC_OK) status = tdc_run(model, inputs, outputs, 1);
 *     if (status != TDC_OK) fprintf(stderr, "%s\n", tdc_message(status));
 *     tdc_free(model);
 *
 * The library prints nothing, ends no process, starts no thread and keeps no state of its own.
 *
 * Threads. A tdc_model is used by one thread at a time. Several threads take one each: tdc_share makes another one of the same
 * mapping, which costs the working memory of one image and nothing else. Different handles may be used and freed at the same time.
 *
 * Ownership. What tdc_load, tdc_load_memory and tdc_share give is the caller's, until tdc_free. Names and sizes that tdc_shape shows
 * belong to the model and last as long as any handle of it. Inputs and outputs are the caller's arrays, and are not kept.
 *
 * Files. Every number in a file is checked once, when it is loaded: a damaged or hostile one gives a status and never a crash. It may ask
 * for much memory (below 2 GiB) or a long computation. A file must not be changed while it is loaded; replacing it by renaming is safe. */
#ifndef TDCOMPRESS_H
#define TDCOMPRESS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define TDC_API __attribute__((visibility("default")))
#else
#define TDC_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the file format that this library reads. */
#define TDC_PLAN_VERSION 1

/* What every function of type int gives. Numbers stay as they are; new ones may be added at the end. */
enum {
    TDC_OK = 0,
    TDC_ERROR_ARGUMENT = 1, /* NULL where something is needed; a number out of range; a batch size that the model does not take */
    TDC_ERROR_FILE = 2,     /* the file cannot be opened, read or mapped: errno says why */
    TDC_ERROR_FORMAT = 3,   /* no plan file, or one whose numbers contradict each other */
    TDC_ERROR_VERSION = 4,  /* a plan file of another version: compile the model again */
    TDC_ERROR_CHECKSUM = 5, /* a damaged plan file */
    TDC_ERROR_ISA = 6,      /* for an instruction set that this machine or library does not have: compile it with --isa, see tdc_best_isa */
    TDC_ERROR_MEMORY = 7,   /* not enough memory, or more than addresses of 32 bits reach */
    TDC_ERROR_INPUT = 8,    /* an input names a row that a table of the model does not have; the outputs are not to be used */
    TDC_ERROR_PLATFORM = 9  /* this processor stores numbers with the highest byte first */
};

/* Element types of inputs. Outputs are always TDC_FLOAT32. A bool is a byte, TDC_UINT8, of 0 or 1. */
enum { TDC_FLOAT32, TDC_UINT8, TDC_INT8, TDC_INT32, TDC_INT64, TDC_FLOAT64 };

enum { TDC_INPUT, TDC_OUTPUT };

typedef struct tdc_model tdc_model;

/* One input or output: row-major, images one after another, aligned as its element type is. */
typedef struct {
    const char *name;
    int64_t type;        /* TDC_FLOAT32 ... */
    int64_t ndim;        /* at least 1 */
    const int64_t *dims; /* dims[0] is the batch size that the model is fixed to; 0: any */
    int64_t elements;    /* of one image: the product of dims[1], dims[2], ... */
} tdc_array;

/* Map a plan file. *model is NULL unless TDC_OK is given. */
TDC_API int tdc_load(const char *path, tdc_model **model);

/* The same of a plan in memory, aligned to 8 bytes (64 are faster), which must last unchanged until every handle of it is freed. */
TDC_API int tdc_load_memory(const void *plan, size_t bytes, tdc_model **model);

/* Another handle of the same plan, for another thread. *other is NULL unless TDC_OK is given. */
TDC_API int tdc_share(const tdc_model *model, tdc_model **other);

/* How many inputs (kind TDC_INPUT) or outputs (TDC_OUTPUT) there are; 0 for any other kind, or no model. */
TDC_API int64_t tdc_count(const tdc_model *model, int kind);

/* Input or output number `index`, in the order of the ONNX file. */
TDC_API int tdc_shape(const tdc_model *model, int kind, int64_t index, tdc_array *array);

/* Run `images` images, one after another, in this thread. inputs[i] and outputs[i] hold images * elements numbers each, and do not overlap. */
TDC_API int tdc_run(tdc_model *model, const void *const *inputs, float *const *outputs, int64_t images);

/* Free a handle, and with the last one the mapping. NULL is nothing. */
TDC_API void tdc_free(tdc_model *model);

/* A status in words, without a newline; never NULL. */
TDC_API const char *tdc_message(int status);

/* The best instruction set of this machine, as --isa takes it: "avx512", "avx2", "neon", "simd128" or "scalar". */
TDC_API const char *tdc_best_isa(void);

#ifdef __cplusplus
}
#endif

#endif
