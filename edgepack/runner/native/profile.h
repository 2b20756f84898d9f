/* What each op took, told by the runtime while the model runs. */
#ifndef EDGEPACK_PROFILE_H
#define EDGEPACK_PROFILE_H

#include "conditions.h"
#include "tflite.h"

#define MAXIMUM_OPS 4096

/* In the order of a run. The runtime tells when its own ops begin and end, and how many
 * microseconds each op took that XNNPACK had taken over (seen with 2.17.1).
 */
static struct op {
  char name[64];
  bool is_delegated;
  int64_t total_ns, started_ns;
  int64_t node; /* its place in the main graph; -1 where that is not told */
} ops[MAXIMUM_OPS];
static uint32_t num_ops, next_op;
static bool is_irregular; /* runs differed in their ops, or there were too many */

static uint32_t enter_op(const char *name, bool is_delegated, int64_t node) {
  if (next_op == MAXIMUM_OPS) {
    is_irregular = true;
    return MAXIMUM_OPS;
  }
  struct op *op = &ops[next_op];
  if (next_op == num_ops) {
    num_ops++;
    snprintf(op->name, sizeof op->name, "%s", name);
    op->is_delegated = is_delegated;
    op->node = node;
  }
  is_irregular |= strncmp(op->name, name, sizeof op->name - 1) != 0;
  return next_op++;
}

static uint32_t begin_op(struct profiler *profiler, const char *name, int64_t op,
                         int64_t subgraph) {
  (void)profiler;
  uint32_t at = enter_op(name, false, subgraph == 0 ? op : -1);
  if (at < num_ops) ops[at].started_ns = now_ns();
  return at;
}

static void end_op(struct profiler *profiler, uint32_t handle) {
  (void)profiler;
  if (handle < num_ops) ops[handle].total_ns += now_ns() - ops[handle].started_ns;
}

static void report_op(struct profiler *profiler, const char *name, uint64_t elapsed_us, int64_t op,
                      int64_t subgraph) {
  (void)profiler, (void)op, (void)subgraph;
  uint32_t at = enter_op(name, true, -1); /* XNNPACK counts its own */
  if (at < num_ops) ops[at].total_ns += (int64_t)elapsed_us * 1000;
}

static void ignore_event(struct profiler *profiler, const char *name, uint64_t status) {
  (void)profiler, (void)name, (void)status;
}

static void ignore_op_event(struct profiler *profiler, const char *name, int64_t op,
                            int64_t subgraph, uint64_t status) {
  (void)profiler, (void)name, (void)op, (void)subgraph, (void)status;
}

static void ignore_settings(struct profiler *profiler, const char *name, const void *settings) {
  (void)profiler, (void)name, (void)settings;
}

static struct profiler profiler = {
    .report_event = ignore_event,
    .report_op_event = ignore_op_event,
    .report_settings = ignore_settings,
    .begin_op = begin_op,
    .end_op = end_op,
    .report_op = report_op,
};

#endif
