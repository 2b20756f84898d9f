/* The TensorFlow Lite C API, found in a library at run time.
 *
 * Declared as in tensorflow/lite/core/c/{c_api.h,c_api_experimental.h} and
 * tensorflow/lite/profiling/telemetry/c/profiler.h of TensorFlow 2.17.
 */
#ifndef EDGEPACK_TFLITE_H
#define EDGEPACK_TFLITE_H

#include <dlfcn.h>

#include "json.h"

typedef struct TfLiteModel TfLiteModel;
typedef struct TfLiteOptions TfLiteOptions;
typedef struct TfLiteInterpreter TfLiteInterpreter;
typedef struct TfLiteTensor TfLiteTensor;
typedef struct TfLiteDelegate TfLiteDelegate;

/* Of TfLiteXNNPackDelegateOptions only the first field is touched. It is larger than two words in
 * every version, so that each ABI here returns it through memory of the caller's, which is roomy.
 */
struct xnnpack_options {
  int32_t num_threads;
  uint8_t others[508];
};

typedef void (*Reporter)(void *data, const char *format, va_list arguments);

/* Times in nanoseconds are ours: the runtime calls back as each op begins and ends. */
struct profiler {
  void *data;
  void (*report_event)(struct profiler *, const char *name, uint64_t status);
  void (*report_op_event)(struct profiler *, const char *name, int64_t op, int64_t subgraph,
                          uint64_t status);
  void (*report_settings)(struct profiler *, const char *name, const void *settings);
  uint32_t (*begin_op)(struct profiler *, const char *name, int64_t op, int64_t subgraph);
  void (*end_op)(struct profiler *, uint32_t handle);
  void (*report_op)(struct profiler *, const char *name, uint64_t elapsed_us, int64_t op,
                    int64_t subgraph);
};

static struct {
  const char *(*Version)(void);
  TfLiteModel *(*ModelCreateFromFileWithErrorReporter)(const char *, Reporter, void *);
  TfLiteOptions *(*InterpreterOptionsCreate)(void);
  void (*InterpreterOptionsSetNumThreads)(TfLiteOptions *, int32_t);
  void (*InterpreterOptionsSetErrorReporter)(TfLiteOptions *, Reporter, void *);
  /* NULL in a library without the experimental part of the API, as of an Android app */
  void (*InterpreterOptionsSetTelemetryProfiler)(TfLiteOptions *, struct profiler *);
  void (*InterpreterOptionsAddDelegate)(TfLiteOptions *, TfLiteDelegate *);
  void (*InterpreterOptionsDelete)(TfLiteOptions *);
  struct xnnpack_options (*XNNPackDelegateOptionsDefault)(void); /* NULL without XNNPACK */
  TfLiteDelegate *(*XNNPackDelegateCreate)(const struct xnnpack_options *);
  TfLiteInterpreter *(*InterpreterCreate)(const TfLiteModel *, const TfLiteOptions *);
  int (*InterpreterAllocateTensors)(TfLiteInterpreter *);
  int (*InterpreterInvoke)(TfLiteInterpreter *);
  int (*InterpreterResetVariableTensors)(TfLiteInterpreter *);
  int32_t (*InterpreterGetInputTensorCount)(const TfLiteInterpreter *);
  TfLiteTensor *(*InterpreterGetInputTensor)(const TfLiteInterpreter *, int32_t);
  int32_t (*InterpreterGetOutputTensorCount)(const TfLiteInterpreter *);
  const TfLiteTensor *(*InterpreterGetOutputTensor)(const TfLiteInterpreter *, int32_t);
  int (*TensorType)(const TfLiteTensor *);
  int32_t (*TensorNumDims)(const TfLiteTensor *);
  int32_t (*TensorDim)(const TfLiteTensor *, int32_t);
  size_t (*TensorByteSize)(const TfLiteTensor *);
  void *(*TensorData)(const TfLiteTensor *);
  const char *(*TensorName)(const TfLiteTensor *);
} api;

static void find_symbol(void *library, const char *name, void *target, bool is_needed) {
  void *found = dlsym(library, name);
  if (found == NULL && is_needed) fail("import", "the runtime library has no %s", name);
  memcpy(target, &found, sizeof found); /* ISO C has no cast from object to function */
}

static void load_library(const char *path) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) fail("import", "the runtime library cannot be loaded: %s", dlerror());
#define FIND(name) find_symbol(library, "TfLite" #name, &api.name, true)
  FIND(Version);
  FIND(ModelCreateFromFileWithErrorReporter);
  FIND(InterpreterOptionsCreate);
  FIND(InterpreterOptionsSetNumThreads);
  FIND(InterpreterOptionsSetErrorReporter);
  FIND(InterpreterOptionsAddDelegate);
  FIND(InterpreterOptionsDelete);
  FIND(InterpreterCreate);
  FIND(InterpreterAllocateTensors);
  FIND(InterpreterInvoke);
  FIND(InterpreterResetVariableTensors);
  FIND(InterpreterGetInputTensorCount);
  FIND(InterpreterGetInputTensor);
  FIND(InterpreterGetOutputTensorCount);
  FIND(InterpreterGetOutputTensor);
  FIND(TensorType);
  FIND(TensorNumDims);
  FIND(TensorDim);
  FIND(TensorByteSize);
  FIND(TensorData);
  FIND(TensorName);
#undef FIND
#define FIND(name) find_symbol(library, "TfLite" #name, &api.name, false)
  FIND(InterpreterOptionsSetTelemetryProfiler);
  FIND(XNNPackDelegateOptionsDefault);
  FIND(XNNPackDelegateCreate);
#undef FIND
}

/* Element types by their number in the C API: numpy's name, and bytes of one. */
static const struct {
  const char *name;
  size_t num_bytes;
} element_types[] = {
    [1] = {"float32", 4}, [2] = {"int32", 4},    [3] = {"uint8", 1},      [4] = {"int64", 8},
    [6] = {"bool", 1},    [7] = {"int16", 2},    [8] = {"complex64", 8},  [9] = {"int8", 1},
    [10] = {"float16", 2}, [11] = {"float64", 8}, [12] = {"complex128", 16}, [13] = {"uint64", 8},
    [16] = {"uint32", 4}, [17] = {"uint16", 2},
};

static const char *type_name(const TfLiteTensor *tensor) {
  int type = api.TensorType(tensor);
  int count = (int)(sizeof element_types / sizeof *element_types);
  if (type < 0 || type >= count || element_types[type].name == NULL)
    fail("model", "tensor %s has elements of type %d, which are not supported",
         api.TensorName(tensor), type);
  return element_types[type].name;
}

#endif
