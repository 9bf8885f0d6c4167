/* SPDX-License-Identifier: Apache-2.0
 *
 * The floor: an echo server without Python, over the same table of operations as vppaio. Candidates c-host and c-vpp.
 *
 * It does what a careful C program would do and no more: one read into one buffer per event, one write from there; only
 * what the peer's window refuses is kept.
 *
 *   echo --table host|vpp --address A --port P [--udp] [--cpu N] [--library FILE]
 *
 * Says "ready" on stdout once it listens, and ends when stdin does.
 */
#include "stack.h"

#include <getopt.h>

#define BUFFER_SIZE (256 * 1024)
#define MAX_CONNECTIONS (1 << 20)
#define BACKLOG 1024

typedef struct
{
  uint32_t session;
  int open;
  char *kept; /* what the tx FIFO refused */
  size_t kept_size, kept_sent;
} connection;

static stack host_or_vpp, *s = &host_or_vpp;
static connection *connections;
static uint32_t *spare; /* indices of closed connections */
static uint32_t n_used, n_spare;
static char buffer[BUFFER_SIZE];

static void
close_connection (connection *c)
{
  s->ops->session_close (c->session);
  free (c->kept);
  *c = (connection){ 0 };
  spare[n_spare++] = (uint32_t) (c - connections);
}

static int
write_all (connection *c, const char *data, size_t size, size_t *sent)
{
  int n = 0;
  while (*sent < size && (n = s->ops->session_write (c->session, data + *sent, size - *sent)) > 0)
    *sent += n;
  return n < 0 && n != -EAGAIN && n != -ENOBUFS ? n : 0;
}

static int
flush (connection *c)
{
  int rv = write_all (c, c->kept, c->kept_size, &c->kept_sent);
  if (rv == 0 && c->kept_sent == c->kept_size)
    {
      free (c->kept);
      c->kept = NULL;
    }
  return rv;
}

static int
answer (connection *c, int n)
{
  size_t sent = 0, rest;
  int rv;
  if (c->kept)
    {
      /* Closed loop: the peer waits for the whole answer before it sends again, so this is rare. */
      c->kept = realloc (c->kept, c->kept_size + n);
      memcpy (c->kept + c->kept_size, buffer, n);
      c->kept_size += n;
      return 0;
    }
  rv = write_all (c, buffer, n, &sent);
  rest = n - sent;
  if (rv < 0 || rest == 0)
    return rv;
  c->kept = malloc (rest);
  memcpy (c->kept, buffer + sent, rest);
  c->kept_size = rest;
  c->kept_sent = 0;
  return 0;
}

static void
on_stream (connection *c, uint32_t events)
{
  int n;
  if ((events & EPOLLOUT) && c->kept && flush (c) < 0)
    {
      close_connection (c);
      return;
    }
  if (!(events & (EPOLLIN | HANG_UP)))
    return;
  for (;;)
    {
      n = s->ops->session_read (c->session, buffer, BUFFER_SIZE);
      if (n == -EAGAIN)
	return;
      if (n <= 0 || answer (c, n) < 0)
	{
	  close_connection (c);
	  return;
	}
      if (n < BUFFER_SIZE && !(events & HANG_UP))
	return;
    }
}

static void
accept_all (uint32_t listener)
{
  vcl_endpoint peer;
  int rv;
  uint32_t index;
  for (;;)
    {
      rv = s->ops->session_accept (listener, &peer);
      if (rv == -ECONNABORTED)
	continue;
      if (rv < 0)
	return;
      index = n_spare ? spare[--n_spare] : n_used++;
      if (index >= MAX_CONNECTIONS)
	give_up ("too many connections");
      connections[index] = (connection){ .session = rv, .open = 1 };
      checked (s->ops->epoll_ctl (s->vep, EPOLL_CTL_ADD, rv, EVENTS_OF_A_STREAM, index), "epoll_ctl");
      on_stream (&connections[index], EPOLLIN | EPOLLRDHUP); /* what came before we watched is not announced */
    }
}

static void
on_datagrams (uint32_t session)
{
  vcl_endpoint peer;
  int n;
  while ((n = s->ops->session_recvfrom (session, buffer, BUFFER_SIZE, &peer)) >= 0)
    s->ops->session_sendto (session, buffer, n, &peer);
}

static int
stdin_ended (void)
{
  struct pollfd in = { .fd = 0, .events = POLLIN };
  return poll (&in, 1, 0) > 0;
}

int
main (int argc, char **argv)
{
  static const struct option options[] = {
    { "table", 1, 0, 't' }, { "address", 1, 0, 'a' }, { "port", 1, 0, 'p' },    { "udp", 0, 0, 'u' },
    { "cpu", 1, 0, 'c' },   { "library", 1, 0, 'l' }, { 0 },
  };
  const char *table = "host", *address = "127.0.0.1", *library = "libvppcom.so";
  int port = 0, udp = 0, cpu = -1, option, i, n;
  static struct epoll_event events[MAX_EVENTS];
  vcl_endpoint local;
  uint32_t listener, index;
  uint64_t looked = 0;

  while ((option = getopt_long (argc, argv, "", options, 0)) != -1)
    switch (option)
      {
      case 't': table = optarg; break;
      case 'a': address = optarg; break;
      case 'p': port = atoi (optarg); break;
      case 'u': udp = 1; break;
      case 'c': cpu = atoi (optarg); break;
      case 'l': library = optarg; break;
      default: return 2;
      }
  pin (cpu);
  connections = calloc (MAX_CONNECTIONS, sizeof (*connections));
  spare = calloc (MAX_CONNECTIONS, sizeof (*spare));
  open_stack (s, table, library, "benchmark-echo");
  local = endpoint_of (address, port);
  listener = checked (s->ops->session_create (s->worker, udp ? VCL_PROTO_UDP : VCL_PROTO_TCP, local.is_ip4), "create");
  if (!udp)
    s->ops->session_set_option (listener, SOL_SOCKET, SO_REUSEADDR, 1);
  checked (s->ops->session_bind (listener, &local), "bind");
  if (!udp)
    checked (s->ops->session_listen (listener, BACKLOG), "listen");
  checked (s->ops->epoll_ctl (s->vep, EPOLL_CTL_ADD, listener, EPOLLIN | EPOLLET, UINT64_MAX), "epoll_ctl");
  puts ("ready");
  fflush (stdout);

  while (now_ns () - looked < 200000000 || !stdin_ended ())
    {
      if (now_ns () - looked >= 200000000)
	looked = now_ns ();
      n = wait_events (s, events, 200);
      for (i = 0; i < n; i++)
	if (events[i].data.u64 == UINT64_MAX)
	  udp ? on_datagrams (listener) : accept_all (listener);
	else if (index = (uint32_t) events[i].data.u64, connections[index].open)
	  on_stream (&connections[index], events[i].events);
    }
  /* VPP 26.06 dies when an application leaves before VPP has digested its last accept (docs/vpp.md 9.6). */
  while (!s->is_host && vppaio_vpp_since_accept () < 0.4)
    {
      vppaio_vpp_poll_all ();
      usleep (10000);
    }
  return 0;
}
