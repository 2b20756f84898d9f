/* Whether run times have settled: two stretches of the warm-up, one after the other, are alike. */
#ifndef EDGEPACK_SETTLING_H
#define EDGEPACK_SETTLING_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAXIMUM_WARMUP_SAMPLES 1000 /* as many are kept; more may be run */
#define MINIMUM_STRETCH_RUNS 3 /* the median of fewer is moved by one run that was disturbed */
#define STEADY_SHARE 50 /* medians that differ by no more than a 50th are alike */

static int compare_times(const void *one, const void *other) {
  int64_t left = *(const int64_t *)one, right = *(const int64_t *)other;
  return (left > right) - (left < right);
}

static int64_t median_of(const int64_t *times, int64_t count) {
  int64_t sorted[MAXIMUM_WARMUP_SAMPLES];
  memcpy(sorted, times, (size_t)count * sizeof *times);
  qsort(sorted, (size_t)count, sizeof *sorted, compare_times);
  return sorted[count / 2];
}

/* A stretch is half of the least warm-up: a model that is steady at once needs no longer one. */
struct settling {
  int64_t runs, time_ns;  /* of a stretch, at least */
  int64_t count, begin;   /* of this one */
  int64_t kept, due_ns;   /* times spread evenly over it */
  int64_t last_ns;        /* median of the one before; 0 is none */
  bool is_judged, is_steady;
  int64_t times[MAXIMUM_WARMUP_SAMPLES];
};

static void settle(struct settling *settling, int64_t start, int64_t end) {
  if (settling->count == 0) settling->begin = settling->due_ns = start;
  /* By when a run began: of those that end after a moment the longer ones are more. */
  if (start >= settling->due_ns && settling->kept < MAXIMUM_WARMUP_SAMPLES) {
    settling->times[settling->kept++] = end - start;
    settling->due_ns += settling->time_ns / MAXIMUM_WARMUP_SAMPLES;
  }
  settling->count++;
  if (settling->count < settling->runs || end - settling->begin < settling->time_ns) return;
  int64_t median_ns = median_of(settling->times, settling->kept), last_ns = settling->last_ns;
  if (last_ns != 0) {
    int64_t change_ns = median_ns > last_ns ? median_ns - last_ns : last_ns - median_ns;
    settling->is_judged = true;
    settling->is_steady = change_ns * STEADY_SHARE <= last_ns;
  }
  settling->last_ns = median_ns > 1 ? median_ns : 1;
  settling->count = settling->kept = 0;
}

#endif
