/* What stands around a measurement, where Linux tells it: clocks, memory, other work. */
#ifndef EDGEPACK_CONDITIONS_H
#define EDGEPACK_CONDITIONS_H

#include <ctype.h>
#include <dirent.h>
#include <sched.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "energy.h"
#include "json.h"

#define UNKNOWN (-1)
#define COLDEST_MILLIS (-50000) /* what a sensor that works can tell */
#define HOTTEST_MILLIS 150000
#define FLAG_DIGITS 8
#define MOST_GOVERNORS 4
#define LONGEST_NAME 32
#define MAXIMUM_GROUP 4224 /* of a control group's path */

static int64_t read_clock(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* The clock of Python's time.perf_counter_ns on Linux. */
static int64_t now_ns(void) { return read_clock(CLOCK_MONOTONIC); }

/* Find the cores that this process may run on; none where nothing tells them. */
static void find_held_cores(cpu_set_t *held) {
  CPU_ZERO(held);
  if (sched_getaffinity(0, sizeof *held, held) != 0) CPU_ZERO(held); /* more than 1,024 cores */
}

static int64_t count_held_cores(void) {
  cpu_set_t held;
  find_held_cores(&held);
  return CPU_COUNT(&held) ? CPU_COUNT(&held) : UNKNOWN;
}

/* Read a file about the clock of a core. */
static bool read_core_file(int core, const char *name, char *text, int size) {
  char folder[64];
  snprintf(folder, sizeof folder, "/sys/devices/system/cpu/cpu%d/cpufreq", core);
  return read_file(folder, name, text, size);
}

/* Give the fastest clock of the cores that this process may run on. */
static int64_t fastest_khz(void) {
  cpu_set_t held;
  int64_t fastest = UNKNOWN;
  find_held_cores(&held);
  for (int core = 0; core < CPU_SETSIZE; core++) {
    char text[32];
    if (!CPU_ISSET(core, &held) || !read_core_file(core, "scaling_cur_freq", text, sizeof text))
      continue;
    long long khz;
    if (sscanf(text, "%19lld", &khz) == 1 && khz > fastest) fastest = khz;
  }
  return fastest;
}

static int compare_texts(const void *one, const void *other) {
  return strcmp((const char *)one, (const char *)other);
}

/* Find what sets the clocks of the cores that this process may run on; several, joined by +. */
static void find_governor(char *text) {
  cpu_set_t held;
  char names[MOST_GOVERNORS][LONGEST_NAME + 1];
  size_t count = 0;
  find_held_cores(&held);
  for (int core = 0; core < CPU_SETSIZE && count < MOST_GOVERNORS; core++) {
    char name[LONGEST_NAME + 2]; /* so that one that is too long shows */
    if (!CPU_ISSET(core, &held) || !read_core_file(core, "scaling_governor", name, sizeof name))
      continue;
    bool is_name = *name && strlen(name) <= LONGEST_NAME && !isdigit((unsigned char)*name);
    for (const char *at = name; *at; at++) is_name &= *at == '_' || isalnum((unsigned char)*at);
    for (size_t each = 0; each < count; each++) is_name &= strcmp(names[each], name) != 0;
    if (is_name) strcpy(names[count++], name);
  }
  qsort(names, count, sizeof *names, compare_texts);
  *text = 0;
  for (size_t each = 0; each < count; each++) {
    if (each) strcat(text, "+");
    strcat(text, names[each]);
  }
}

/* Give the flags of a Raspberry Pi's firmware, as far as its kernel has them. */
static int64_t throttled_flags(void) {
  char text[16];
  if (!read_file("/sys/devices/platform/soc/soc:firmware", "get_throttled", text, sizeof text) ||
      strlen(text) > FLAG_DIGITS)
    return UNKNOWN;
  for (const char *at = text; *at; at++)
    if (!isxdigit((unsigned char)*at)) return UNKNOWN;
  return *text ? (int64_t)strtoul(text, NULL, 16) : UNKNOWN;
}

/* Tell whether a zone is named after a CPU or SoC. */
static bool is_cpu_zone(const char *folder) {
  static const char *const words[] = {"cpu", "soc", "pkg", "package", "cluster"};
  char name[64];
  if (!read_file(folder, "type", name, sizeof name)) return false;
  for (char *at = name; *at; at++) *at = (char)tolower((unsigned char)*at);
  for (size_t word = 0; word < sizeof words / sizeof *words; word++)
    if (strstr(name, words[word]) != NULL) return true;
  return false;
}

/* Find the hottest zone that is named after a CPU or SoC, else the hottest of all. */
static bool find_heat(int32_t *millis) {
  bool has_cpu = false, is_found = false;
  DIR *entries = opendir("/sys/class/thermal");
  if (entries == NULL) return false;
  for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
    char folder[290], text[32];
    long degrees;
    if (strncmp(entry->d_name, "thermal_zone", strlen("thermal_zone")) != 0) continue;
    snprintf(folder, sizeof folder, "/sys/class/thermal/%.255s", entry->d_name);
    if (!read_file(folder, "temp", text, sizeof text) || /* may be a sensor asleep */
        sscanf(text, "%9ld", &degrees) != 1 || degrees < COLDEST_MILLIS || degrees > HOTTEST_MILLIS)
      continue;
    bool is_cpu = is_cpu_zone(folder);
    if (!is_found || (is_cpu && !has_cpu) || (is_cpu == has_cpu && degrees > *millis))
      *millis = (int32_t)degrees;
    is_found = true;
    has_cpu |= is_cpu;
  }
  closedir(entries);
  return is_found;
}

/* Give how many threads of all programs want a core, this one's own included. */
static int64_t count_runnable(void) {
  char line[128] = "";
  long long count = UNKNOWN;
  FILE *file = fopen("/proc/loadavg", "r");
  if (file == NULL) return UNKNOWN;
  /* Android hides it, and proot-distro puts a file of always this line there. */
  if (fgets(line, sizeof line, file) == NULL || strcmp(line, "0.12 0.07 0.02 2/165 765\n") == 0 ||
      sscanf(line, "%*s %*s %*s %9lld/", &count) != 1)
    count = UNKNOWN;
  fclose(file);
  return count;
}

/* Find the line of a file of /proc that begins with a key, which has a space or so behind it. */
static bool find_line(const char *path, const char *key, char *line, int size) {
  FILE *file = fopen(path, "r");
  if (file == NULL) return false; /* not in this kernel, or hidden from this user */
  bool found = false;
  size_t length = strlen(key);
  while (!found && fgets(line, size, file) != NULL)
    found = strncmp(line, key, length) == 0 && line[length] == ' ';
  fclose(file);
  return found;
}

/* Give the time of all cores that a hypervisor gave to others, since the system was started. */
static int64_t stolen_ns(void) {
  char line[512];
  long long ticks, a_second = sysconf(_SC_CLK_TCK);
  if (a_second <= 0 || !find_line("/proc/stat", "cpu", line, sizeof line) ||
      sscanf(line, "cpu %*s %*s %*s %*s %*s %*s %*s %15lld", &ticks) != 1)
    return UNKNOWN;
  return ticks * 1000000000 / a_second;
}

/* Give the time that the cores this process may run on worked, for any program. */
static int64_t busy_ns(void) {
  cpu_set_t held;
  char line[512];
  long long ticks = 0, a_second = sysconf(_SC_CLK_TCK);
  int num_told = 0;
  find_held_cores(&held);
  FILE *file = a_second > 0 ? fopen("/proc/stat", "r") : NULL;
  if (file == NULL) return UNKNOWN;
  while (fgets(line, sizeof line, file) != NULL) {
    int core;
    long long user, nice, system, irq, softirq;
    if (strncmp(line, "cpu", 3) != 0 || !isdigit((unsigned char)line[3]) || /* of all: no digit */
        sscanf(line, "cpu%5d %15lld %15lld %15lld %*s %*s %15lld %15lld", &core, &user, &nice,
               &system, &irq, &softirq) != 6 ||
        core >= CPU_SETSIZE || !CPU_ISSET(core, &held))
      continue;
    ticks += user + nice + system + irq + softirq;
    num_told++;
  }
  fclose(file);
  return num_told && num_told == CPU_COUNT(&held) ? ticks * 1000000000 / a_second : UNKNOWN;
}

/* Add what the quota of a control group has kept waiting, where it tells that. */
static void add_quota_wait(const char *folder, int64_t *total) {
  char path[MAXIMUM_GROUP + 16], line[128];
  snprintf(path, sizeof path, "%s/cpu.stat", folder);
  FILE *file = fopen(path, "r");
  while (file != NULL && fgets(line, sizeof line, file) != NULL) {
    long long time;
    if (sscanf(line, "throttled_usec %15lld", &time) == 1) time *= 1000; /* version 2 */
    else if (sscanf(line, "throttled_time %18lld", &time) != 1) continue; /* version 1 */
    *total = (*total == UNKNOWN ? 0 : *total) + time;
  }
  if (file != NULL) fclose(file);
}

static bool names_cpu(char *controllers) {
  for (char *name = strtok(controllers, ","); name != NULL; name = strtok(NULL, ","))
    if (strcmp(name, "cpu") == 0) return true;
  return false;
}

/* Give the time, summed over cores, that quotas of control groups have kept threads waiting. A
 * group's counter tells of its own quota only, so those of the groups around it are added. */
static int64_t quota_wait_ns(void) {
  static char line[MAXIMUM_GROUP - 32], folder[MAXIMUM_GROUP];
  int64_t total = UNKNOWN;
  FILE *file = fopen("/proc/self/cgroup", "r");
  while (file != NULL && fgets(line, sizeof line, file) != NULL) {
    line[strcspn(line, "\n")] = 0;
    char *controllers = strchr(line, ':');
    char *path = controllers ? strchr(controllers + 1, ':') : NULL;
    if (path == NULL) continue;
    *path++ = 0;
    bool is_unified = *++controllers == 0;
    if (!is_unified && !names_cpu(controllers)) continue;
    if (strstr(path, "/..") != NULL) *path = 0; /* outside of what is shown */
    const char *root = is_unified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu";
    snprintf(folder, sizeof folder, "%s%s", root, path);
    char *end = folder + strlen(folder), *top = folder + strlen(root);
    while (end > top && end[-1] == '/') *--end = 0;
    for (;;) {
      add_quota_wait(folder, &total);
      char *slash = strrchr(top, '/');
      if (slash == NULL) break;
      *slash = 0;
    }
  }
  if (file != NULL) fclose(file);
  return total;
}

/* Give the time in which some program waited for memory; kernels may be without it. */
static int64_t memory_stall_ns(void) {
  char line[256];
  long long total_us;
  if (!find_line("/proc/pressure/memory", "some", line, sizeof line) ||
      sscanf(line, "some %*s %*s %*s total=%15lld", &total_us) != 1)
    return UNKNOWN;
  return total_us * 1000;
}

/* Give what was moved to swap and back, since the system was started. */
static int64_t swapped_bytes(void) {
  char line[256];
  long long in, out;
  if (!find_line("/proc/vmstat", "pswpin", line, sizeof line) ||
      sscanf(line, "pswpin %14lld", &in) != 1 ||
      !find_line("/proc/vmstat", "pswpout", line, sizeof line) ||
      sscanf(line, "pswpout %14lld", &out) != 1)
    return UNKNOWN;
  return (in + out) * sysconf(_SC_PAGESIZE);
}

struct conditions {
  int64_t frequency_khz;
  bool has_temperature;
  int32_t temperature_millis;
  int64_t num_runnable;
  int64_t stolen_ns;
  int64_t busy_ns;
  int64_t quota_wait_ns;
  int64_t memory_stall_ns;
  int64_t swapped_bytes;
  int64_t throttled;
  char governor[MOST_GOVERNORS * (LONGEST_NAME + 1)];
  int64_t energy_uj;
};

static struct conditions read_conditions(void) {
  int64_t runnable = count_runnable();
  bool is_hidden = runnable == UNKNOWN; /* who hides or makes up that file does so with others */
  int32_t millis = 0;
  bool has_temperature = find_heat(&millis);
  struct conditions conditions = {
      .frequency_khz = fastest_khz(),
      .has_temperature = has_temperature,
      .temperature_millis = millis,
      .num_runnable = runnable,
      .stolen_ns = is_hidden ? UNKNOWN : stolen_ns(),
      .busy_ns = is_hidden ? UNKNOWN : busy_ns(),
      .quota_wait_ns = quota_wait_ns(),
      .memory_stall_ns = memory_stall_ns(),
      .swapped_bytes = is_hidden ? UNKNOWN : swapped_bytes(),
      .throttled = throttled_flags(),
      .energy_uj = read_meter(),
  };
  find_governor(conditions.governor);
  return conditions;
}

static void write_count(const char *name, int64_t count) {
  if (count == UNKNOWN) fprintf(channel, "\"%s\":null", name);
  else fprintf(channel, "\"%s\":%lld", name, (long long)count);
}

/* Write the fields of a table and its end. */
static void write_fields(struct conditions conditions) {
  write_count("frequency_khz", conditions.frequency_khz);
  fputs(",\"temperature_c\":", channel);
  if (!conditions.has_temperature) fputs("null", channel);
  else fprintf(channel, "%.3f", (double)conditions.temperature_millis / 1000);
  fputc(',', channel);
  write_count("num_runnable", conditions.num_runnable);
  fputc(',', channel);
  write_count("stolen_ns", conditions.stolen_ns);
  fputc(',', channel);
  write_count("busy_ns", conditions.busy_ns);
  fputc(',', channel);
  write_count("quota_wait_ns", conditions.quota_wait_ns);
  fputc(',', channel);
  write_count("memory_stall_ns", conditions.memory_stall_ns);
  fputc(',', channel);
  write_count("swapped_bytes", conditions.swapped_bytes);
  fputc(',', channel);
  write_count("throttled", conditions.throttled);
  fputs(",\"governor\":", channel);
  if (*conditions.governor) write_text(conditions.governor);
  else fputs("null", channel);
  fputc(',', channel);
  write_count("energy_uj", conditions.energy_uj);
  fputc('}', channel);
}

static void write_conditions(const char *name, struct conditions conditions) {
  fprintf(channel, "\"%s\":{", name);
  write_fields(conditions);
}

/* Give this process's peak resident memory in bytes; UNKNOWN when nothing tells it. */
static int64_t peak_memory_bytes(void) {
  char line[256];
  long long kib = 0;
  FILE *file = fopen("/proc/self/status", "r");
  while (file != NULL && fgets(line, sizeof line, file) != NULL)
    if (sscanf(line, "VmHWM: %15lld kB", &kib) == 1) break;
  if (file != NULL) fclose(file);
  if (kib > 0) return kib * 1024;
  struct rusage usage; /* in KiB on Linux (getrusage(2)) */
  if (getrusage(RUSAGE_SELF, &usage) == 0 && usage.ru_maxrss > 0)
    return (int64_t)usage.ru_maxrss * 1024;
  return UNKNOWN;
}

#endif
