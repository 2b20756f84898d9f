/* The energy taken since the meter was opened, where a counter or a sensor tells it.
 *
 * First the processor's own counters (RAPL: its packages, and memory where it has a counter), else
 * the first sensor of Texas Instruments' INA family, which boards carry in their supply: its
 * counter, or its power, taken as even from one look to the next.
 */
#ifndef EDGEPACK_ENERGY_H
#define EDGEPACK_ENERGY_H

#include <dirent.h>
#include <time.h>
#include <unistd.h>

#include "json.h"

#define MAXIMUM_COUNTERS 16
#define RAPL_FOLDER "/sys/class/powercap"
#define HWMON_FOLDER "/sys/class/hwmon"

struct counter {
  char path[300];
  int64_t span; /* where it begins anew; 0 when that is not told */
  int64_t last;
};

static struct {
  struct counter counters[MAXIMUM_COUNTERS];
  int num_counters;
  bool is_power; /* the one counter is a sensor of power, in microwatts */
  double total_uj;
  int64_t time_ns; /* when it last looked */
  char source[300]; /* empty where nothing tells it */
  char reason[400];
} meter;

static int64_t meter_clock(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static bool read_file(const char *folder, const char *name, char *text, int size) {
  char path[600];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "r");
  if (file == NULL) return false;
  bool is_read = fgets(text, size, file) != NULL;
  fclose(file);
  if (is_read) text[strcspn(text, "\n")] = 0;
  return is_read;
}

static bool read_count(const char *path, int64_t *number) {
  long long value;
  FILE *file = fopen(path, "r");
  if (file == NULL) return false;
  bool is_read = fscanf(file, "%18lld", &value) == 1 && value >= 0;
  fclose(file);
  if (is_read) *number = value;
  return is_read;
}

static bool look_at_counters(int64_t *values) {
  for (int at = 0; at < meter.num_counters; at++)
    if (!read_count(meter.counters[at].path, &values[at])) return false;
  return meter.num_counters != 0;
}

static void deny_energy(const char *reason) {
  snprintf(meter.reason, sizeof meter.reason, "%s: %s", meter.source, reason);
  meter.source[0] = 0;
  meter.num_counters = 0;
}

static int compare_names(const struct dirent **one, const struct dirent **other) {
  return strcmp((*one)->d_name, (*other)->d_name);
}

static int is_rapl(const struct dirent *entry) {
  return strncmp(entry->d_name, "intel-rapl:", strlen("intel-rapl:")) == 0;
}

static int is_hwmon(const struct dirent *entry) { return strncmp(entry->d_name, "hwmon", 5) == 0; }

static void find_rapl(void) {
  struct dirent **zones;
  int count = scandir(RAPL_FOLDER, &zones, is_rapl, compare_names);
  for (int at = 0; at < count; at++) {
    char folder[290], name[64], span[32];
    snprintf(folder, sizeof folder, RAPL_FOLDER "/%.250s", zones[at]->d_name);
    free(zones[at]);
    if (!read_file(folder, "name", name, sizeof name) || meter.num_counters == MAXIMUM_COUNTERS ||
        (strncmp(name, "package", 7) != 0 && strcmp(name, "dram") != 0))
      continue;
    struct counter *counter = &meter.counters[meter.num_counters++];
    snprintf(counter->path, sizeof counter->path, "%.280s/energy_uj", folder);
    if (read_file(folder, "max_energy_range_uj", span, sizeof span)) counter->span = atoll(span);
    size_t used = strlen(meter.source);
    snprintf(meter.source + used, sizeof meter.source - used, "%s%s", used ? ", " : "RAPL ", name);
  }
  if (count >= 0) free(zones);
  for (int at = 0; at < meter.num_counters; at++)
    if (access(meter.counters[at].path, R_OK) != 0) {
      deny_energy("only root may read it, unless `sudo chmod a+r` lets others");
      return;
    }
}

static void find_sensor(void) {
  struct dirent **chips;
  int count = scandir(HWMON_FOLDER, &chips, is_hwmon, compare_names);
  for (int at = 0; at < count; at++) {
    char folder[290], name[64];
    snprintf(folder, sizeof folder, HWMON_FOLDER "/%.250s", chips[at]->d_name);
    bool is_sensor = meter.num_counters == 0 && read_file(folder, "name", name, sizeof name) &&
                     strncmp(name, "ina", 3) == 0;
    struct counter *counter = &meter.counters[0];
    static const char *const files[] = {"energy1_input", "power1_input"};
    for (int file = 0; is_sensor && file < 2 && meter.num_counters == 0; file++) {
      snprintf(counter->path, sizeof counter->path, "%.270s/%s", folder, files[file]);
      if (access(counter->path, F_OK) != 0) continue;
      counter->span = 0;
      meter.num_counters = 1;
      meter.is_power = file == 1;
      meter.reason[0] = 0;
      snprintf(meter.source, sizeof meter.source, "%s of %.200s", name, chips[at]->d_name);
    }
    free(chips[at]);
  }
  if (count >= 0) free(chips);
}

static void open_meter(void) {
  int64_t values[MAXIMUM_COUNTERS];
  find_rapl();
  if (meter.num_counters == 0) find_sensor();
  if (meter.num_counters == 0 && !meter.reason[0])
    snprintf(meter.reason, sizeof meter.reason,
             "no RAPL in /sys/class/powercap, no INA sensor in hwmon");
  if (meter.num_counters != 0 && !look_at_counters(values)) deny_energy("it cannot be read");
  for (int at = 0; at < meter.num_counters; at++) meter.counters[at].last = values[at];
  meter.time_ns = meter_clock();
}

/* Give the microjoules since the meter was opened; -1 where nothing tells them. */
static int64_t read_meter(void) {
  int64_t values[MAXIMUM_COUNTERS];
  if (!look_at_counters(values)) return -1;
  int64_t now = meter_clock();
  for (int at = 0; at < meter.num_counters; at++) {
    struct counter *counter = &meter.counters[at];
    double last = (double)counter->last, value = (double)values[at];
    if (meter.is_power) meter.total_uj += (last + value) / 2 * (double)(now - meter.time_ns) / 1e9;
    else if (value >= last) meter.total_uj += value - last;
    else if (counter->span) meter.total_uj += (double)counter->span - last + value; /* anew */
    counter->last = values[at];
  }
  meter.time_ns = now;
  return (int64_t)meter.total_uj;
}

static void write_meter(void) {
  fputs("\"energy_source\":", channel);
  if (meter.source[0]) write_text(meter.source);
  else fputs("null", channel);
  fputs(",\"energy_reason\":", channel);
  if (meter.reason[0]) write_text(meter.reason);
  else fputs("null", channel);
}

#endif
