/* JSON: one bounded request is read, events are written line by line.
 *
 * A fault of any kind is an event too: `fail` writes it and ends the process with exit code 1.
 */
#ifndef EDGEPACK_JSON_H
#define EDGEPACK_JSON_H

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAXIMUM_REQUEST_BYTES (1 << 20)
#define MAXIMUM_DEPTH 16
#define MAXIMUM_MESSAGE_BYTES 1000

enum kind { KIND_NULL, KIND_FALSE, KIND_TRUE, KIND_NUMBER, KIND_TEXT, KIND_LIST, KIND_TABLE };

/* One value of the request; all live until the process ends. */
struct value {
  enum kind kind;
  double number;
  char *text;
  char *key;           /* its name in a table */
  struct value *first; /* of a list or table */
  struct value *next;
};

static FILE *channel; /* where events go: what was standard output when the process began */

/* Give the length of the UTF-8 sequence that begins here; 0 when it is none. */
static inline int sequence_length(const unsigned char *text) {
  int length = text[0] < 0x80 ? 1 : text[0] >= 0xC2 && text[0] < 0xE0 ? 2
               : (text[0] & 0xF0) == 0xE0 ? 3 : text[0] >= 0xF0 && text[0] < 0xF5 ? 4 : 0;
  for (int index = 1; index < length; index++)
    if ((text[index] & 0xC0) != 0x80) return 0;
  if ((text[0] == 0xE0 && text[1] < 0xA0) || (text[0] == 0xED && text[1] > 0x9F)) return 0;
  if ((text[0] == 0xF0 && text[1] < 0x90) || (text[0] == 0xF4 && text[1] > 0x8F)) return 0;
  return length;
}

/* Write a text in quotes; bytes that are no UTF-8 become question marks. */
static void write_text(const char *text) {
  fputc('"', channel);
  for (const unsigned char *at = (const unsigned char *)text; *at;) {
    int length = sequence_length(at);
    if (*at == '"' || *at == '\\') fputc('\\', channel);
    if (length == 0) fputc('?', channel);
    else if (*at < 0x20) fprintf(channel, "\\u%04x", *at);
    else fwrite(at, 1, (size_t)length, channel);
    at += length ? length : 1;
  }
  fputc('"', channel);
}

/* End a line; a channel that nobody reads any more ends the process. */
static void end_line(void) {
  fputs("}\n", channel);
  if (fflush(channel) != 0) exit(1);
}

__attribute__((noreturn, format(printf, 2, 3)))
static void fail(const char *kind, const char *format, ...) {
  char message[MAXIMUM_MESSAGE_BYTES];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  fprintf(channel, "{\"event\":\"error\",\"kind\":\"%s\",\"message\":", kind);
  write_text(message);
  end_line();
  exit(1);
}

static void *allocate(size_t count, size_t size) {
  void *memory = calloc(count ? count : 1, size ? size : 1);
  if (memory == NULL) fail("memory", "the device ran out of memory");
  return memory;
}

struct reader {
  const char *at;
  const char *end;
};

__attribute__((noreturn)) static void refuse(const char *what) {
  fail("request", "the request is not JSON: %s", what);
}

static void skip_space(struct reader *reader) {
  while (reader->at < reader->end && strchr(" \t\r\n", *reader->at) && *reader->at) reader->at++;
}

static bool accept(struct reader *reader, const char *word) {
  size_t length = strlen(word);
  if ((size_t)(reader->end - reader->at) < length || memcmp(reader->at, word, length) != 0)
    return false;
  reader->at += length;
  return true;
}

static unsigned read_hex(struct reader *reader) {
  unsigned code = 0;
  for (int index = 0; index < 4; index++) {
    char digit = reader->at < reader->end ? *reader->at++ : 0;
    const char *found = digit ? strchr("0123456789abcdef0123456789ABCDEF", digit) : NULL;
    if (found == NULL) refuse("expected four hex digits after \\u");
    code = code * 16 + (unsigned)(found - "0123456789abcdef0123456789ABCDEF") % 16;
  }
  return code;
}

static char *append_code(char *to, unsigned code) {
  if (code < 0x80) *to++ = (char)code;
  else if (code < 0x800) *to++ = (char)(0xC0 | code >> 6);
  else if (code < 0x10000) *to++ = (char)(0xE0 | code >> 12);
  else *to++ = (char)(0xF0 | code >> 18);
  if (code >= 0x10000) *to++ = (char)(0x80 | (code >> 12 & 0x3F));
  if (code >= 0x800) *to++ = (char)(0x80 | (code >> 6 & 0x3F));
  if (code >= 0x80) *to++ = (char)(0x80 | (code & 0x3F));
  return to;
}

/* Read a text after its opening quote; an escape never takes less room than what it stands for. */
static char *read_text(struct reader *reader) {
  const char *close = reader->at;
  while (close < reader->end && *close != '"') close += *close == '\\' ? 2 : 1;
  if (close >= reader->end) refuse("a text without an end");
  char *text = allocate((size_t)(close - reader->at) + 1, 1), *to = text;
  while (*reader->at != '"') {
    char letter = *reader->at++;
    if ((unsigned char)letter < 0x20) refuse("a control character in a text");
    if (letter != '\\') {
      *to++ = letter;
      continue;
    }
    letter = *reader->at++;
    const char *plain = letter ? strchr("\"\\/bfnrt", letter) : NULL;
    if (plain != NULL) {
      *to++ = "\"\\/\b\f\n\r\t"[plain - "\"\\/bfnrt"];
      continue;
    }
    if (letter != 'u') refuse("an unknown escape in a text");
    unsigned code = read_hex(reader);
    if (code >= 0xD800 && code < 0xDC00 && accept(reader, "\\u"))
      code = 0x10000 + ((code - 0xD800) << 10) + ((read_hex(reader) - 0xDC00) & 0x3FF);
    if (code == 0 || (code >= 0xD800 && code < 0xE000)) refuse("a text with no character");
    to = append_code(to, code);
  }
  reader->at++;
  return text;
}

static double read_number(struct reader *reader) {
  char digits[64];
  size_t length = 0;
  while (reader->at < reader->end && length < sizeof digits - 1 && *reader->at &&
         strchr("+-.0123456789eE", *reader->at))
    digits[length++] = *reader->at++;
  digits[length] = 0;
  char *stop;
  double number = strtod(digits, &stop);
  if (length == 0 || *stop || !isfinite(number)) refuse("expected a value");
  return number;
}

static struct value *read_value(struct reader *reader, int depth) {
  struct value *value = allocate(1, sizeof *value);
  if (depth > MAXIMUM_DEPTH) refuse("it is too deep");
  skip_space(reader);
  if (accept(reader, "null")) return value;
  if (accept(reader, "false") || accept(reader, "true")) {
    value->kind = reader->at[-2] == 's' ? KIND_FALSE : KIND_TRUE;
    return value;
  }
  if (accept(reader, "\"")) {
    value->kind = KIND_TEXT;
    value->text = read_text(reader);
    return value;
  }
  bool is_table = accept(reader, "{");
  if (!is_table && !accept(reader, "[")) {
    value->kind = KIND_NUMBER;
    value->number = read_number(reader);
    return value;
  }
  value->kind = is_table ? KIND_TABLE : KIND_LIST;
  const char *close = is_table ? "}" : "]";
  skip_space(reader);
  if (accept(reader, close)) return value;
  for (struct value **tail = &value->first;; tail = &(*tail)->next) {
    char *key = NULL;
    skip_space(reader);
    if (is_table) {
      if (!accept(reader, "\"")) refuse("expected a name");
      key = read_text(reader);
      skip_space(reader);
      if (!accept(reader, ":")) refuse("expected a colon");
    }
    *tail = read_value(reader, depth + 1);
    (*tail)->key = key;
    skip_space(reader);
    if (accept(reader, close)) return value;
    if (!accept(reader, ",")) refuse("expected a comma");
  }
}

/* Read a whole document. */
static struct value *read_document(const char *text, size_t num_bytes) {
  struct reader reader = {text, text + num_bytes};
  struct value *value = read_value(&reader, 0);
  skip_space(&reader);
  if (reader.at != reader.end) refuse("more than one value");
  return value;
}

/* Find a value of a table; NULL when there is none. */
static const struct value *find(const struct value *table, const char *key) {
  for (const struct value *each = table->first; each != NULL; each = each->next)
    if (each->key != NULL && strcmp(each->key, key) == 0) return each;
  return NULL;
}

static const char *text_of(const struct value *table, const char *key) {
  const struct value *value = find(table, key);
  if (value == NULL || value->kind != KIND_TEXT) fail("request", "%s: expected a text", key);
  return value->text;
}

static double number_of(const struct value *table, const char *key, double minimum,
                        double maximum) {
  const struct value *value = find(table, key);
  if (value == NULL || value->kind != KIND_NUMBER || value->number < minimum ||
      value->number > maximum)
    fail("request", "%s: expected a number from %.0f to %.0f", key, minimum, maximum);
  return value->number;
}

static bool flag_of(const struct value *table, const char *key) {
  const struct value *value = find(table, key);
  return value != NULL && value->kind == KIND_TRUE;
}

#endif
