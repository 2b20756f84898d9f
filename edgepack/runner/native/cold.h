/* A model's file dropped from memory, so that the next one to open it reads it from the disk. */
#ifndef EDGEPACK_COLD_H
#define EDGEPACK_COLD_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define COLD_SHARE 20 /* no more than a 20th may be left in memory */

struct coldness {
  bool is_asked, is_cold;
  char reason[120]; /* why it is not */
};

/* Give how many pages of a file are in memory, of how many; -1 when that cannot be seen. */
static int64_t count_resident(int file, size_t num_bytes, size_t *num_pages) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  *num_pages = (num_bytes + page - 1) / page;
  void *data = mmap(NULL, num_bytes, PROT_READ, MAP_PRIVATE, file, 0);
  if (data == MAP_FAILED) return -1;
  unsigned char *pages = malloc(*num_pages);
  int64_t count = -1;
  if (pages != NULL && mincore(data, num_bytes, pages) == 0) {
    count = 0;
    for (size_t at = 0; at < *num_pages; at++) count += pages[at] & 1;
  }
  free(pages);
  munmap(data, num_bytes);
  return count;
}

/* Only what is written to the disk can be dropped, and that is a wish: so it is looked at. */
static struct coldness drop_from_memory(const char *path) {
  struct coldness coldness = {.is_asked = true};
  struct stat facts;
  size_t num_pages = 0;
  int64_t resident = -1;
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file >= 0 && fstat(file, &facts) == 0) {
    fsync(file);
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    resident = count_resident(file, (size_t)facts.st_size, &num_pages);
  }
  if (file >= 0) close(file);
  coldness.is_cold = resident >= 0 && (uint64_t)resident * COLD_SHARE <= num_pages;
  if (resident < 0)
    snprintf(coldness.reason, sizeof coldness.reason,
             "it cannot be seen whether the model left the memory");
  else if (!coldness.is_cold)
    snprintf(coldness.reason, sizeof coldness.reason,
             "%lld of %zu pages of the model stayed in memory", (long long)resident, num_pages);
  return coldness;
}

#endif
