/* SPDX-License-Identifier: Apache-2.0
 *
 * The client's side of echo-tls: OpenSSL on memory BIOs, so that TLS too runs over the table of operations. Certificates
 * are not verified. Without OpenSSL's headers the load generator is built without this, and says so when asked for TLS.
 */
#ifndef BENCHMARKS_TLS_H
#define BENCHMARKS_TLS_H

#include "stack.h"

#ifdef WITH_TLS
#include <openssl/ssl.h>

typedef struct
{
  SSL *ssl;
  BIO *from_peer, *to_peer;
} tls;

static SSL_CTX *tls_context;

static void
tls_open (tls *t)
{
  if (!tls_context)
    {
      tls_context = SSL_CTX_new (TLS_client_method ());
      SSL_CTX_set_session_cache_mode (tls_context, SSL_SESS_CACHE_OFF);
    }
  t->ssl = SSL_new (tls_context);
  t->from_peer = BIO_new (BIO_s_mem ());
  t->to_peer = BIO_new (BIO_s_mem ());
  SSL_set_bio (t->ssl, t->from_peer, t->to_peer);
  SSL_set_connect_state (t->ssl);
}

static void
tls_close (tls *t)
{
  SSL_free (t->ssl);
  *t = (tls){ 0 };
}

/* 1 when the handshake is done, 0 while it goes on, -1 when it failed. */
static int
tls_handshake (tls *t)
{
  int rv = SSL_do_handshake (t->ssl);
  return rv == 1 ? 1 : SSL_get_error (t->ssl, rv) == SSL_ERROR_WANT_READ ? 0 : -1;
}

static void
tls_feed (tls *t, const char *data, int size)
{
  BIO_write (t->from_peer, data, size);
}

/* Plain bytes; 0 if there are none; negative on failure. */
static int
tls_read (tls *t, char *data, int size)
{
  int n = SSL_read (t->ssl, data, size);
  return n > 0 ? n : SSL_get_error (t->ssl, n) == SSL_ERROR_WANT_READ ? 0 : -ECONNRESET;
}

static void
tls_write (tls *t, const char *data, int size)
{
  SSL_write (t->ssl, data, size);
}

/* Records that wait to be sent: their number of bytes, and where they are. */
static size_t
tls_pending (tls *t, char **data)
{
  long n = BIO_get_mem_data (t->to_peer, data);
  return n > 0 ? (size_t) n : 0;
}

static void
tls_sent (tls *t, size_t size)
{
  char sink[16384];
  while (size > 0)
    size -= BIO_read (t->to_peer, sink, size < sizeof (sink) ? size : sizeof (sink));
}

#else

typedef struct
{
  void *ssl;
} tls;
#define tls_open(t) give_up ("built without TLS: OpenSSL's headers are missing")
#define tls_close(t) ((void) (t))
#define tls_handshake(t) ((void) (t), -1)
#define tls_feed(t, data, size) ((void) (t))
#define tls_read(t, data, size) ((void) (t), -1)
#define tls_write(t, data, size) ((void) (t))
#define tls_pending(t, data) ((void) (t), *(data) = NULL, (size_t) 0)
#define tls_sent(t, size) ((void) (t))

#endif
#endif
