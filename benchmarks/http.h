/* SPDX-License-Identifier: Apache-2.0
 *
 * Just enough of an HTTP/1.1 client: it counts the bytes of responses that have a Content-Length.
 */
#ifndef BENCHMARKS_HTTP_H
#define BENCHMARKS_HTTP_H

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define HTTP_HEAD_SIZE 1024

typedef struct
{
  char head[HTTP_HEAD_SIZE + 1];
  size_t head_size;
  size_t body_left;
  int in_body;
} http_response;

/* Takes bytes of a response. 1 when it is complete, 0 while it is not, -1 when it is not what was asked for. */
static int
http_take (http_response *r, const char *data, size_t size)
{
  char *end, *field;
  size_t n = size, too_many;
  if (!r->in_body)
    {
      if (n > HTTP_HEAD_SIZE - r->head_size)
	n = HTTP_HEAD_SIZE - r->head_size;
      memcpy (r->head + r->head_size, data, n);
      r->head_size += n;
      r->head[r->head_size] = 0;
      end = strstr (r->head, "\r\n\r\n");
      if (!end)
	return r->head_size == HTTP_HEAD_SIZE ? -1 : 0;
      *end = 0;
      field = strcasestr (r->head, "\r\ncontent-length:");
      if (strncmp (r->head, "HTTP/1.1 200", 12) || !field)
	return -1;
      r->body_left = strtoul (field + 17, 0, 10);
      r->in_body = 1;
      too_many = r->head_size - (end + 4 - r->head); /* the body's beginning is in the buffer, too */
      data += n - too_many;
      size -= n - too_many;
    }
  if (size > r->body_left)
    return -1;
  r->body_left -= size;
  if (r->body_left)
    return 0;
  r->head_size = 0;
  r->in_body = 0;
  return 1;
}

#endif
