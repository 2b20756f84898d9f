/* Run a TFLite model on the device it is sent to, and say in JSON lines how that went.
 *
 * Usage: `runner --library FILE REQUEST`, where REQUEST is a JSON object, or `-` to read it from
 * standard input; FILE is a libtensorflowlite_c.so. It speaks as `tflite.py` beside it does, which
 * describes requests and events, for devices without a Python that suits. One process is one
 * launch. Two modes are its own: `check` loads the library and no model; `profile` has `runs`, and
 * tells the time of each op in them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cold.h"
#include "conditions.h"
#include "json.h"
#include "profile.h"
#include "settling.h"
#include "tflite.h"

#define ENGINE "tensorflow-lite-c"
#define CHUNK_BYTES (3u << 20) /* of one output line; divisible by 3: no padding inside */
#define MAXIMUM_SAMPLES 1e8
#define MAXIMUM_TICKS 1000
#define TICK_NS 500000000 /* between looks at the conditions */
#define SETTLE_SECONDS 0.3
#define IDLE_STEP_SECONDS 0.1
#define QUICK_NS 50000000 /* a longer run brings the model back into the caches by itself */

/* What the runtime said last, for messages; it says the particulars first. */
static char said[600];

static void keep_words(void *data, const char *format, va_list arguments) {
  (void)data;
  size_t used = strlen(said);
  vsnprintf(said + used, sizeof said - used, format, arguments);
  used = strlen(said);
  if (used + 1 < sizeof said) memcpy(said + used, " ", 2);
}

__attribute__((noreturn)) static void fail_with_words(const char *kind, const char *otherwise) {
  /* TensorFlow Lite 2.17, for ops it has no kernel for; Flex ops may show at the first run only. */
  static const char *const unsupported[] = {
      "unresolved custom op", "Didn't find op for builtin opcode", "Op builtin_code out of range",
      "Select TensorFlow op(s)"};
  for (size_t index = 0; index < sizeof unsupported / sizeof *unsupported; index++)
    if (strstr(said, unsupported[index]) != NULL) kind = "unsupported_op";
  char *to = said;
  for (const char *from = said; *from; from++) { /* any run of space becomes one */
    bool is_space = (unsigned char)*from <= ' ';
    if (!is_space) *to++ = *from;
    else if (to > said && to[-1] != ' ') *to++ = ' ';
  }
  while (to > said && to[-1] == ' ') to--;
  *to = 0;
  fail(kind, "%s", *said ? said : otherwise);
}

static bool has_delegate; /* whether XNNPACK was offered the graph */

static TfLiteDelegate *make_delegate(int32_t threads) {
  if (api.XNNPackDelegateOptionsDefault == NULL || api.XNNPackDelegateCreate == NULL) return NULL;
  struct xnnpack_options options = api.XNNPackDelegateOptionsDefault();
  options.num_threads = threads > 1 ? threads : 0; /* as Python's interpreter: no pool for one */
  return api.XNNPackDelegateCreate(&options);
}

static TfLiteInterpreter *make_interpreter(const TfLiteModel *model, int32_t threads,
                                           TfLiteDelegate *delegate, bool is_profiled) {
  TfLiteOptions *options = api.InterpreterOptionsCreate();
  api.InterpreterOptionsSetNumThreads(options, threads);
  api.InterpreterOptionsSetErrorReporter(options, keep_words, NULL);
  if (delegate != NULL) api.InterpreterOptionsAddDelegate(options, delegate);
  if (is_profiled && api.InterpreterOptionsSetTelemetryProfiler != NULL)
    api.InterpreterOptionsSetTelemetryProfiler(options, &profiler);
  TfLiteInterpreter *interpreter = api.InterpreterCreate(model, options);
  api.InterpreterOptionsDelete(options);
  return interpreter;
}

static TfLiteInterpreter *open_model(const char *path, int32_t threads, bool is_profiled) {
  TfLiteModel *model = api.ModelCreateFromFileWithErrorReporter(path, keep_words, NULL);
  if (model == NULL) fail_with_words("model", "it is not a TFLite model");
  /* The library applies no delegate by itself, as Python's interpreter does. XNNPACK refuses a
   * graph with dynamic sizes as a whole; it runs on the plain kernels then, there as here. */
  TfLiteDelegate *delegate = make_delegate(threads);
  TfLiteInterpreter *interpreter = NULL;
  if (delegate != NULL) interpreter = make_interpreter(model, threads, delegate, is_profiled);
  has_delegate = interpreter != NULL;
  if (interpreter == NULL) {
    *said = 0;
    interpreter = make_interpreter(model, threads, NULL, is_profiled);
  }
  if (interpreter == NULL) fail_with_words("model", "the runtime refused the model");
  if (api.InterpreterAllocateTensors(interpreter) != 0)
    fail_with_words("model", "the model's tensors cannot be allocated");
  return interpreter;
}

static void emit_engine(int32_t threads) {
  fputs("{\"event\":\"engine\",\"name\":\"" ENGINE "\",\"version\":", channel);
  write_text(api.Version());
  fprintf(channel, ",\"runner\":\"native\",\"python\":null,\"threads\":%d", (int)threads);
  /* Which ops XNNPACK took is not watched in a launch, since watching takes time: unknown there. */
  bool is_known = num_ops != 0 || !has_delegate, is_delegated = false;
  for (uint32_t at = 0; at < num_ops; at++) is_delegated |= ops[at].is_delegated;
  fprintf(channel, ",\"xnnpack\":%s", !is_known ? "null" : is_delegated ? "true" : "false");
  end_line();
}

/* Made-up values: reals between -1 and 1, small integers of any value, all else zero. */
static void make_up(void *data, size_t num_bytes, const char *type, uint64_t *state) {
  size_t count;
  memset(data, 0, num_bytes);
#define NEXT() (*state = *state * 6364136223846793005u + 1442695040888963407u, *state >> 33)
  if (strcmp(type, "float32") == 0)
    for (count = num_bytes / 4; count--;)
      ((float *)data)[count] = (float)NEXT() / (float)(1u << 30) - 1.0f;
  else if (strcmp(type, "float64") == 0)
    for (count = num_bytes / 8; count--;)
      ((double *)data)[count] = (double)NEXT() / (double)(1u << 30) - 1.0;
  else if (strcmp(type, "float16") == 0) /* half to one, of either sign */
    for (count = num_bytes / 2; count--;)
      ((uint16_t *)data)[count] = (uint16_t)(0x3800 | (NEXT() & 0x83FF));
  else if (strstr(type, "int8") != NULL || strstr(type, "int16") != NULL)
    for (count = num_bytes; count--;) ((uint8_t *)data)[count] = (uint8_t)(NEXT() >> 8);
#undef NEXT
}

static void read_sample(const char *path, int64_t sample, void *data, size_t num_bytes,
                        const char *name) {
  FILE *file = fopen(path, "rb");
  if (file == NULL)
    fail("missing_file", "the input file %s cannot be read: %s", path, strerror(errno));
  size_t done = 0;
  if (fseeko(file, (off_t)sample * (off_t)num_bytes, SEEK_SET) == 0)
    done = fread(data, 1, num_bytes, file);
  fclose(file);
  if (done != num_bytes)
    fail("inputs", "input %s needs %zu bytes a sample, but sample %lld of %s has %zu", name,
         num_bytes, (long long)sample, path, done);
}

/* Set all inputs to one sample of the request's files, or to made-up values. */
static void feed(TfLiteInterpreter *interpreter, const struct value *request, int64_t sample) {
  const struct value *paths = find(request, "inputs");
  int32_t count = api.InterpreterGetInputTensorCount(interpreter), given = 0;
  uint64_t state = 1;
  if (paths == NULL || paths->kind != KIND_LIST) fail("request", "inputs: expected a list");
  for (const struct value *each = paths->first; each != NULL; each = each->next) {
    if (each->kind != KIND_TEXT) fail("request", "inputs: expected texts");
    given++;
  }
  if (given != 0 && given != count)
    fail("inputs", "expected a file for each of %d inputs, but got %d", (int)count, (int)given);
  const struct value *path = paths->first;
  for (int32_t index = 0; index < count; index++, path = path ? path->next : NULL) {
    TfLiteTensor *tensor = api.InterpreterGetInputTensor(interpreter, index);
    size_t num_bytes = api.TensorByteSize(tensor);
    const char *type = type_name(tensor), *name = api.TensorName(tensor);
    void *data = api.TensorData(tensor);
    /* Tensors count as allocated when the memory for them could not be had (2.17.1). */
    if (data == NULL && num_bytes != 0)
      fail("memory", "the device ran out of memory: there is none for the model's tensors");
    if (num_bytes == 0) continue;
    if (path != NULL) read_sample(path->text, sample, data, num_bytes, name);
    else make_up(data, num_bytes, type, &state);
  }
}

static int64_t invoke(TfLiteInterpreter *interpreter) {
  next_op = 0;
  int64_t start = now_ns();
  if (api.InterpreterInvoke(interpreter) != 0) fail_with_words("invoke", "the model did not run");
  return now_ns() - start;
}

static void write_base64(const uint8_t *data, size_t num_bytes) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t at = 0; at < num_bytes; at += 3) {
    size_t left = num_bytes - at;
    uint32_t bits = (uint32_t)data[at] << 16;
    if (left > 1) bits |= (uint32_t)data[at + 1] << 8;
    if (left > 2) bits |= data[at + 2];
    char group[4] = {digits[bits >> 18], digits[bits >> 12 & 63],
                     left > 1 ? digits[bits >> 6 & 63] : '=', left > 2 ? digits[bits & 63] : '='};
    fwrite(group, 1, 4, channel);
  }
}

static void emit_output(int64_t sample, int32_t index, const TfLiteTensor *tensor) {
  size_t num_bytes = api.TensorByteSize(tensor), offset = 0;
  const uint8_t *data = api.TensorData(tensor);
  if (data == NULL && num_bytes != 0)
    fail("invoke", "output %s was not computed", api.TensorName(tensor));
  do {
    size_t length = num_bytes - offset < CHUNK_BYTES ? num_bytes - offset : CHUNK_BYTES;
    fprintf(channel, "{\"event\":\"output\",\"sample\":%lld,\"index\":%d,\"dtype\":\"%s\"",
            (long long)sample, (int)index, type_name(tensor));
    fputs(",\"shape\":[", channel);
    for (int32_t axis = 0; axis < api.TensorNumDims(tensor); axis++)
      fprintf(channel, "%s%d", axis ? "," : "", (int)api.TensorDim(tensor, axis));
    fprintf(channel, "],\"num_bytes\":%zu,\"offset\":%zu,\"data\":\"", num_bytes, offset);
    if (length != 0) write_base64(data + offset, length);
    fputc('"', channel);
    end_line();
    offset += length;
  } while (offset < num_bytes);
}

static void emit_outputs(TfLiteInterpreter *interpreter, const struct value *request,
                         int32_t threads) {
  int64_t samples = (int64_t)number_of(request, "samples", 1, 1e6);
  bool is_emitted = flag_of(request, "emit"), is_stream = flag_of(request, "stream");
  for (int64_t sample = 0; sample < samples; sample++) {
    feed(interpreter, request, is_emitted ? sample : 0);
    /* Variable tensors start afresh with each sample unless the samples are a stream. */
    if (!is_stream && api.InterpreterResetVariableTensors(interpreter) != 0)
      fail_with_words("invoke", "the model's variables cannot be reset");
    int64_t run_ns = invoke(interpreter);
    if (sample == 0) emit_engine(threads);
    fprintf(channel, "{\"event\":\"sample\",\"sample\":%lld,\"run_ns\":%lld", (long long)sample,
            (long long)run_ns);
    end_line();
    int32_t count = is_emitted ? api.InterpreterGetOutputTensorCount(interpreter) : 0;
    for (int32_t index = 0; index < count; index++)
      emit_output(sample, index, api.InterpreterGetOutputTensor(interpreter, index));
  }
}

static void emit_profile(TfLiteInterpreter *interpreter, const struct value *request,
                         int32_t threads) {
  int64_t runs = (int64_t)number_of(request, "runs", 1, 1e6);
  if (api.InterpreterOptionsSetTelemetryProfiler == NULL)
    fail("import", "the runtime library tells nothing of single ops");
  feed(interpreter, request, 0);
  invoke(interpreter); /* the first one sets things up */
  emit_engine(threads);
  for (uint32_t at = 0; at < num_ops; at++) ops[at].total_ns = 0;
  int64_t total_ns = 0;
  for (int64_t run = 0; run < runs; run++) total_ns += invoke(interpreter);
  const char *reason = is_irregular   ? "\"the ops of one run are not those of another\""
                       : num_ops == 0 ? "\"this runtime tells none\""
                                      : "null";
  fprintf(channel, "{\"event\":\"profile\",\"num_runs\":%lld,\"total_ns\":%lld",
          (long long)runs, (long long)total_ns);
  fprintf(channel, ",\"reason\":%s,\"ops\":[", reason);
  for (uint32_t at = 0; at < num_ops && !is_irregular; at++) {
    fprintf(channel, "%s{\"name\":", at ? "," : "");
    write_text(ops[at].name);
    fprintf(channel, ",\"xnnpack\":%s,\"total_ns\":%lld,", ops[at].is_delegated ? "true" : "false",
            (long long)ops[at].total_ns);
    write_count("node", ops[at].node);
    fputc('}', channel);
  }
  fputc(']', channel);
  end_line();
}

struct limits {
  int64_t runs, time_ns, deadline_ns;
};

/* Run until both minimums are met, and run times have settled where that is wanted; give how many
 * samples were kept, and count all runs. */
static int64_t warm_up(TfLiteInterpreter *interpreter, int64_t *storage, int64_t capacity,
                       struct limits limits, struct settling *settling, int64_t *count) {
  int64_t begin = now_ns(), end = begin;
  for (*count = 0; (*count < limits.runs || end - begin < limits.time_ns ||
                    (settling != NULL && !settling->is_steady)) &&
                   end < limits.deadline_ns;
       ++*count) {
    int64_t start = now_ns();
    if (api.InterpreterInvoke(interpreter) != 0) fail_with_words("invoke", "it did not run");
    end = now_ns();
    if (*count < capacity) storage[*count] = end - start;
    if (settling != NULL) settle(settling, start, end);
  }
  return *count < capacity ? *count : capacity;
}

/* What stood around the sample that came next. */
struct tick {
  int64_t sample;
  struct conditions conditions;
};

static struct tick ticks[MAXIMUM_TICKS];
static int64_t num_ticks;

/* Time every stride-th run until both minimums are met; give the number of samples. Now and then,
 * between runs, it looks at the conditions; a quick model's run after that is not timed, as looking
 * has taken it out of the caches. */
static int64_t time_runs(TfLiteInterpreter *interpreter, int64_t *storage, int64_t capacity,
                         struct limits limits, int64_t stride) {
  int64_t count = 0, begin = now_ns(), interval = limits.time_ns / MAXIMUM_TICKS;
  if (interval < TICK_NS) interval = TICK_NS;
  int64_t look = begin + interval;
  for (;;) {
    int64_t start = now_ns();
    int status = api.InterpreterInvoke(interpreter);
    int64_t end = now_ns();
    if (status != 0) fail_with_words("invoke", "the model did not run");
    storage[count++] = end - start;
    if (count == capacity || (count >= limits.runs && end - begin >= limits.time_ns)) return count;
    if (end + (end - start) * stride > limits.deadline_ns) return count; /* would end too late */
    if (end >= look && num_ticks < MAXIMUM_TICKS) {
      ticks[num_ticks++] = (struct tick){count, read_conditions()};
      look = now_ns() + interval;
      if (end - start < QUICK_NS && api.InterpreterInvoke(interpreter) != 0)
        fail_with_words("invoke", "it did not run");
    }
    for (int64_t between = 1; between < stride; between++)
      if (api.InterpreterInvoke(interpreter) != 0) fail_with_words("invoke", "it did not run");
  }
}

static void write_times(const char *name, const int64_t *times, int64_t count) {
  fprintf(channel, ",\"%s\":[", name);
  for (int64_t index = 0; index < count; index++)
    fprintf(channel, "%s%lld", index ? "," : "", (long long)times[index]);
  fputc(']', channel);
}

static void emit_launch(TfLiteInterpreter *interpreter, const struct value *request,
                        int64_t init_ns, int64_t memory_before, struct coldness coldness) {
  const struct value *plan = find(request, "plan");
  if (plan == NULL || plan->kind != KIND_TABLE) fail("request", "plan: expected a table");
  int64_t capacity = (int64_t)number_of(plan, "max_samples", 1, MAXIMUM_SAMPLES);
  int64_t min_ns = (int64_t)(number_of(plan, "min_seconds", 0, 1e6) * 1e9);
  int64_t limit_ns = (int64_t)(number_of(plan, "max_seconds", 0, 1e6) * 1e9);
  struct limits least = {
      .runs = (int64_t)number_of(plan, "warmup_runs", 0, 1e9),
      .time_ns = (int64_t)(number_of(plan, "warmup_seconds", 0, 1e6) * 1e9),
  };
  feed(interpreter, request, 0);
  int64_t begin = now_ns();
  int64_t first_ns = invoke(interpreter);
  fprintf(channel, "{\"event\":\"first\",\"first_ns\":%lld", (long long)first_ns);
  end_line();
  static int64_t warmup[MAXIMUM_WARMUP_SAMPLES];
  int64_t room = capacity < MAXIMUM_WARMUP_SAMPLES ? capacity : MAXIMUM_WARMUP_SAMPLES, num_warmup;
  least.deadline_ns = begin + limit_ns / 3;
  static struct settling settling;
  settling.runs = (least.runs + 1) / 2;
  if (settling.runs < MINIMUM_STRETCH_RUNS) settling.runs = MINIMUM_STRETCH_RUNS;
  settling.time_ns = least.time_ns / 2;
  bool until_steady = flag_of(plan, "until_steady");
  int64_t kept = warm_up(interpreter, warmup, room, least, until_steady ? &settling : NULL,
                         &num_warmup);
  int64_t typical_ns = kept ? median_of(warmup, kept) : first_ns;
  /* So that a quick model's samples span the whole time in bounded storage, only every
   * stride-th run is timed; a tenth is left for runs that get quicker. */
  double full = (double)(typical_ns > 1 ? typical_ns : 1) * (double)capacity * 0.9;
  int64_t stride = 1 + (int64_t)((double)min_ns / full);
  int64_t *storage = allocate((size_t)capacity, sizeof *storage);
  open_meter();
  struct conditions before = read_conditions();
  struct limits minimum = {(int64_t)number_of(plan, "min_runs", 1, 1e9), min_ns, begin + limit_ns};
  int64_t start = now_ns(), cpu_start = read_clock(CLOCK_PROCESS_CPUTIME_ID);
  int64_t count = time_runs(interpreter, storage, capacity, minimum, stride);
  int64_t cpu_ns = read_clock(CLOCK_PROCESS_CPUTIME_ID) - cpu_start, wall_ns = now_ns() - start;
  struct conditions after = read_conditions();
  int64_t peak = peak_memory_bytes();
  fprintf(channel, "{\"event\":\"launch\",\"init_ns\":%lld,\"first_ns\":%lld", (long long)init_ns,
          (long long)first_ns);
  write_times("warmup_ns", warmup, kept);
  fprintf(channel, ",\"num_warmup_runs\":%lld", (long long)num_warmup);
  const char *steadiness = !settling.is_judged ? "null" : settling.is_steady ? "true" : "false";
  fprintf(channel, ",\"is_steady\":%s", steadiness);
  const char *cold = !coldness.is_asked ? "null" : coldness.is_cold ? "true" : "false";
  fprintf(channel, ",\"is_cold\":%s,\"cold_reason\":", cold);
  if (*coldness.reason) write_text(coldness.reason);
  else fputs("null", channel);
  write_times("samples_ns", storage, count);
  fprintf(channel, ",\"stride\":%lld,\"wall_ns\":%lld,\"cpu_ns\":%lld", (long long)stride,
          (long long)wall_ns, (long long)cpu_ns);
  fputc(',', channel);
  write_conditions("before", before);
  fputc(',', channel);
  write_conditions("after", after);
  fputs(",\"ticks\":[", channel);
  for (int64_t at = 0; at < num_ticks; at++) {
    fprintf(channel, "%s{\"sample\":%lld,", at ? "," : "", (long long)ticks[at].sample);
    write_fields(ticks[at].conditions);
  }
  fputs("],", channel);
  write_count("peak_memory_bytes", peak);
  fprintf(channel, ",\"peak_memory_reason\":%s,",
          peak == UNKNOWN ? "\"neither /proc/self/status nor getrusage tells it\"" : "null");
  write_count("start_memory_bytes", memory_before);
  fputc(',', channel);
  write_count("num_cores", count_held_cores());
  fputc(',', channel);
  write_meter();
  end_line();
}

static void sleep_for(double seconds) {
  struct timespec span = {.tv_sec = (time_t)seconds};
  span.tv_nsec = (long)((seconds - (double)span.tv_sec) * 1e9);
  nanosleep(&span, NULL);
}

/* Tell the energy taken while this process sleeps. */
static void emit_idle(const struct value *request) {
  double seconds = number_of(request, "seconds", 0, 3600);
  sleep_for(SETTLE_SECONDS); /* its own start is no idling */
  open_meter();
  int64_t start = meter.time_ns, energy_uj = read_meter();
  while (energy_uj != UNKNOWN && (double)(meter.time_ns - start) < seconds * 1e9) {
    sleep_for(IDLE_STEP_SECONDS);
    energy_uj = read_meter();
  }
  fprintf(channel, "{\"event\":\"idle\",\"wall_ns\":%lld,", (long long)(meter.time_ns - start));
  write_count("energy_uj", energy_uj);
  fputc(',', channel);
  write_meter();
  end_line();
}

static void run(const struct value *request, const char *mode) {
  const char *path = text_of(request, "model");
  int32_t threads = (int32_t)number_of(request, "threads", 1, 4096);
  bool is_launch = strcmp(mode, "latency") == 0;
  struct stat facts;
  if (stat(path, &facts) != 0 || !S_ISREG(facts.st_mode))
    fail("missing_file", "the model %s is not there", path);
  struct coldness coldness = {.is_asked = false};
  if (is_launch && flag_of(request, "cold")) coldness = drop_from_memory(path);
  int64_t memory_before = peak_memory_bytes();
  int64_t start = now_ns();
  TfLiteInterpreter *interpreter = open_model(path, threads, !is_launch);
  int64_t init_ns = now_ns() - start;
  if (strcmp(mode, "outputs") == 0) emit_outputs(interpreter, request, threads);
  else if (!is_launch) emit_profile(interpreter, request, threads);
  else {
    emit_engine(threads);
    fprintf(channel, "{\"event\":\"init\",\"init_ns\":%lld", (long long)init_ns);
    end_line();
    emit_launch(interpreter, request, init_ns, memory_before, coldness);
  }
}

/* Read the request, which is bounded like everything from outside. */
static struct value *read_request(const char *argument) {
  if (strcmp(argument, "-") != 0) return read_document(argument, strlen(argument));
  char *text = allocate(MAXIMUM_REQUEST_BYTES + 1, 1);
  size_t num_bytes = fread(text, 1, MAXIMUM_REQUEST_BYTES, stdin);
  return read_document(text, num_bytes);
}

int main(int argc, char **argv) {
  /* Events alone go to standard output: what the library prints goes to standard error. */
  int output = dup(1);
  channel = output < 0 ? NULL : fdopen(output, "w");
  if (channel == NULL || dup2(2, 1) < 0) return 1;
  if (argc != 4 || strcmp(argv[1], "--library") != 0)
    fail("request", "expected --library FILE REQUEST on the command line");
  const struct value *request = read_request(argv[3]);
  const struct value *mode = request->kind == KIND_TABLE ? find(request, "mode") : NULL;
  static const char *const modes[] = {"outputs", "latency", "profile", "check", "idle"};
  int known = 0;
  for (size_t index = 0; index < sizeof modes / sizeof *modes; index++)
    known |= mode != NULL && mode->kind == KIND_TEXT && strcmp(mode->text, modes[index]) == 0;
  if (!known) fail("request", "expected a request with the mode outputs or latency");
  if (strcmp(mode->text, "idle") == 0) {
    emit_idle(request);
  } else {
    load_library(argv[2]);
    if (strcmp(mode->text, "check") == 0) emit_engine(1);
    else run(request, mode->text);
  }
  fputs("{\"event\":\"done\"", channel);
  end_line();
  return 0;
}
