/* SPDX-License-Identifier: Apache-2.0
 *
 * The load generator: closed loop, N connections with one outstanding message each, over the same table of operations as
 * vppaio. So kernel and VPP servers meet the same client, and only the server differs.
 *
 *   load --table host|vpp --mode echo|http|http-close|connect|udp --address A --port P --connections N --size S
 *        --warmup S --seconds S [--tls] [--cpu N] [--server-pid N] [--vpp-pid N] [--library FILE] [--verify]
 *
 * An operation is a message and its echo; a request and its response (http-close: and the connection they need); or
 * connect, one echo and close. The processor time of server and VPP is read here, at the very beginning and end of the
 * measured interval, so what they spend on starting, connecting and warming up does not count. Result: JSON on stdout;
 * "others" is how many processors everybody else kept busy meanwhile. With --verify (echo) no message is like another, and
 * every byte of every answer is compared.
 */
#include "stack.h"

#include "histogram.h"
#include "http.h"
#include "tls.h"

#include <getopt.h>

#define BUFFER_SIZE (256 * 1024)
#define MOST_CONNECTING 64 /* less than anybody's backlog */
#define DATAGRAM_LOST_NS 200000000
#define GIVE_UP_NS 10000000000ull /* nothing happens any more */
#define TOO_MANY_ERRORS 1000
#define LEAVE_NS 200000000

enum mode
{
  ECHO,
  HTTP,
  HTTP_CLOSE,
  CONNECT,
  UDP,
};

enum state
{
  CLOSED,
  CONNECTING,
  HANDSHAKING,
  OPEN,
};

typedef struct
{
  uint32_t session;
  uint32_t generation; /* events of the session that was here before are not ours */
  enum state state;
  size_t sent, received;
  uint64_t started;
  tls tls;
  http_response *response;
  char *request; /* its own with --verify */
} connection;

static struct
{
  const char *table, *mode_name, *address, *library;
  enum mode mode;
  int port, n_connections, tls, cpu, server_pid, vpp_pid, verify;
  size_t size;
  double warmup_s, seconds;
} o = { .table = "host",
	.mode_name = "echo",
	.address = "127.0.0.1",
	.library = "libvppcom.so",
	.n_connections = 1,
	.size = 64,
	.warmup_s = 0.3,
	.seconds = 1,
	.cpu = -1 };

static stack host_or_vpp, *s = &host_or_vpp;
static connection *connections;
static vcl_endpoint peer;
static char *request, buffer[BUFFER_SIZE], plain[BUFFER_SIZE];
static size_t request_size;
static int n_open, next_to_open, n_connecting, started;
static uint64_t errors, phase_end, last_progress;
static enum { CONNECTING_ALL, WARMING_UP, MEASURING, DONE } phase;
static histogram latencies;
static struct
{
  uint64_t clock, server, vpp, self, busy;
} from, to;

/* ---- Phases ----------------------------------------------------------------------------------------------------- */

static uint64_t
cpu_ns (int pid)
{
  clockid_t clock;
  if (!pid || clock_getcpuclockid (pid, &clock))
    return 0;
  return clock_ns (clock);
}

/* Processor time of the whole machine that was not idle, hypervisor's included; in steps of 10 ms. */
static uint64_t
busy_ns (void)
{
  unsigned long long user, nice, system, idle, io, irq, softirq, steal;
  FILE *stat = fopen ("/proc/stat", "r");
  int n = stat ? fscanf (stat, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &io, &irq,
			 &softirq, &steal) :
		 0;
  if (stat)
    fclose (stat);
  return n == 8 ? (user + nice + system + irq + softirq + steal) * (1000000000ull / sysconf (_SC_CLK_TCK)) : 0;
}

static void
next_phase (uint64_t now)
{
  if (phase == WARMING_UP)
    {
      phase = MEASURING;
      errors = 0;
      memset (&latencies, 0, sizeof (latencies));
      from.busy = busy_ns ();
      from.server = cpu_ns (o.server_pid);
      from.vpp = cpu_ns (o.vpp_pid);
      from.self = clock_ns (CLOCK_PROCESS_CPUTIME_ID);
      from.clock = now_ns ();
      phase_end = from.clock + (uint64_t) (o.seconds * 1e9);
    }
  else if (phase == MEASURING)
    {
      phase = DONE;
      to.clock = now;
      to.server = cpu_ns (o.server_pid);
      to.vpp = cpu_ns (o.vpp_pid);
      to.self = clock_ns (CLOCK_PROCESS_CPUTIME_ID);
      to.busy = busy_ns ();
    }
}

static void
operation_done (connection *c, uint64_t now)
{
  histogram_add (&latencies, now - c->started);
  last_progress = now;
  if (now >= phase_end)
    next_phase (now);
}

/* ---- One connection --------------------------------------------------------------------------------------------- */

static void begin_operation (connection *c, uint64_t now);

static void
open_connection (connection *c)
{
  int rv = s->ops->session_create (s->worker, o.mode == UDP ? VCL_PROTO_UDP : VCL_PROTO_TCP, peer.is_ip4);
  c->session = checked (rv, "create");
  c->generation++;
  c->state = CONNECTING;
  c->sent = c->received = 0;
  if (o.mode == CONNECT || o.mode == HTTP_CLOSE)
    c->started = now_ns ();
  n_connecting++;
  checked (s->ops->epoll_ctl (s->vep, EPOLL_CTL_ADD, c->session, EVENTS_OF_A_STREAM,
			      (uint64_t) c->generation << 32 | (uint32_t) (c - connections)),
	   "epoll_ctl");
  rv = s->ops->session_connect (c->session, &peer);
  if (rv < 0 && rv != -EINPROGRESS)
    give_up ("connect: %s", strerror (-rv));
}

static void
close_connection (connection *c)
{
  if (c->tls.ssl)
    tls_close (&c->tls);
  s->ops->session_close (c->session);
  if (c->state == CONNECTING)
    n_connecting--;
  else
    n_open--;
  c->state = CLOSED;
  c->generation++;
}

static void
fail (connection *c, const char *what, int rv)
{
  if (++errors > TOO_MANY_ERRORS || phase == CONNECTING_ALL)
    give_up ("%s: %s (%d of %d connections stand, %lu errors)", what, rv ? strerror (-rv) : "the peer has closed", n_open,
	     o.n_connections, errors);
  close_connection (c);
  open_connection (c);
}

/* What is still to be sent; true if something failed, and then the connection is another one. */
static int
flush (connection *c)
{
  int n;
  char *data = c->request + c->sent;
  size_t size = c->state == OPEN ? request_size - c->sent : 0;
  for (;;)
    {
      if (c->tls.ssl)
	size = tls_pending (&c->tls, &data);
      if (size == 0)
	return 0;
      if (o.mode == UDP)
	n = s->ops->session_sendto (c->session, data, size, NULL);
      else
	n = s->ops->session_write (c->session, data, size);
      if (n == -EAGAIN || n == -ENOBUFS)
	return 0;
      if (n < 0)
	{
	  fail (c, "write", n);
	  return 1;
	}
      if (c->tls.ssl)
	tls_sent (&c->tls, n);
      else
	c->sent += n;
      data += n;
      size -= n;
    }
}

static void
stamp (connection *c)
{
  static uint64_t number;
  uint64_t mark[2] = { ++number, (uint64_t) (c - connections) };
  memcpy (c->request, mark, request_size < sizeof (mark) ? request_size : sizeof (mark));
}

static void
begin_operation (connection *c, uint64_t now)
{
  if (o.mode != CONNECT && o.mode != HTTP_CLOSE)
    c->started = now;
  c->sent = c->received = 0;
  if (o.verify)
    stamp (c);
  if (c->tls.ssl)
    {
      tls_write (&c->tls, c->request, (int) request_size);
      c->sent = request_size;
    }
  flush (c);
}

/* Bytes of an answer. True when the connection is not what it was before. */
static int
take (connection *c, const char *data, size_t size)
{
  uint64_t now;
  int complete;
  if (c->response)
    complete = http_take (c->response, data, size);
  else
    {
      /* Without counting each byte twice: the first answer on a connection is compared, the others are measured. */
      complete = c->received + size > request_size ? -1 : c->received + size == request_size;
      if ((phase <= WARMING_UP || o.verify) && complete >= 0 && memcmp (c->request + c->received, data, size))
	complete = -1;
      c->received += size;
    }
  if (complete == 0)
    return 0;
  if (complete < 0)
    {
      fail (c, "wrong answer", -EPROTO);
      return 1;
    }
  now = now_ns ();
  operation_done (c, now);
  if (o.mode == CONNECT || o.mode == HTTP_CLOSE)
    {
      close_connection (c);
      if (phase != DONE)
	open_connection (c);
      return 1;
    }
  if (phase != DONE)
    begin_operation (c, now);
  return 0;
}

static int
take_records (connection *c, const char *data, int size)
{
  int n;
  tls_feed (&c->tls, data, size);
  if (c->state == HANDSHAKING)
    {
      n = tls_handshake (&c->tls);
      if (n < 0)
	{
	  fail (c, "handshake", -EPROTO);
	  return 1;
	}
      if (flush (c))
	return 1;
      if (n == 0)
	return 0;
      c->state = OPEN;
      if (started || o.mode == CONNECT)
	begin_operation (c, now_ns ());
    }
  while ((n = tls_read (&c->tls, plain, sizeof (plain))) > 0)
    if (take (c, plain, n))
      return 1;
  if (n < 0)
    {
      fail (c, "TLS", n);
      return 1;
    }
  return flush (c); /* a key update's answer */
}

static void
on_connected (connection *c)
{
  n_connecting--;
  n_open++;
  c->state = OPEN;
  last_progress = now_ns ();
  if (o.tls)
    {
      c->state = HANDSHAKING;
      tls_open (&c->tls);
      tls_handshake (&c->tls);
      flush (c);
    }
  else if (started)
    begin_operation (c, now_ns ());
}

static void
on_readable (connection *c, int to_the_end)
{
  int n;
  for (;;)
    {
      if (o.mode == UDP)
	{
	  vcl_endpoint from;
	  n = s->ops->session_recvfrom (c->session, buffer, BUFFER_SIZE, &from);
	  if (n == -ECONNREFUSED)
	    n = -EAGAIN; /* counted when it is sent again */
	}
      else
	n = s->ops->session_read (c->session, buffer, BUFFER_SIZE);
      if (n == -EAGAIN)
	return;
      if (n <= 0)
	{
	  fail (c, "read", n);
	  return;
	}
      if (c->tls.ssl ? take_records (c, buffer, n) : take (c, buffer, n))
	return;
      if (phase == DONE || (n < BUFFER_SIZE && !to_the_end && o.mode != UDP))
	return;
    }
}

static void
on_events (connection *c, uint32_t events)
{
  int rv;
  if (c->state == CONNECTING)
    {
      rv = s->ops->session_connect_result (c->session, events);
      if (rv == -EINPROGRESS)
	return;
      if (rv < 0)
	{
	  fail (c, "connect", rv);
	  return;
	}
      on_connected (c);
      return;
    }
  if ((events & EPOLLOUT) && flush (c))
    return;
  if (events & (EPOLLIN | HANG_UP))
    on_readable (c, events & HANG_UP);
}

/* ---- All of them ------------------------------------------------------------------------------------------------ */

static void
open_more (void)
{
  while (next_to_open < o.n_connections && n_connecting < MOST_CONNECTING)
    open_connection (&connections[next_to_open++]);
}

/* Everybody stands: go. */
static void
start (void)
{
  uint64_t now = now_ns ();
  started = 1;
  phase = WARMING_UP;
  phase_end = now + (uint64_t) (o.warmup_s * 1e9);
  for (int i = 0; i < o.n_connections; i++)
    begin_operation (&connections[i], now);
}

static void
send_lost_again (uint64_t now)
{
  for (int i = 0; i < o.n_connections; i++)
    if (connections[i].state == OPEN && now - connections[i].started > DATAGRAM_LOST_NS)
      {
	errors++;
	begin_operation (&connections[i], now);
      }
}

static int
everybody_stands (void)
{
  if (n_open < o.n_connections)
    return 0;
  for (int i = 0; o.tls && i < o.n_connections; i++)
    if (connections[i].state != OPEN)
      return 0;
  return 1;
}

static void
run (void)
{
  static struct epoll_event events[MAX_EVENTS];
  uint64_t now, looked = 0;
  last_progress = now_ns ();
  while (phase != DONE)
    {
      if (phase == CONNECTING_ALL)
	{
	  open_more ();
	  if (everybody_stands ())
	    start ();
	}
      int n = wait_events (s, events, 100);
      for (int i = 0; i < n && phase != DONE; i++)
	{
	  connection *c = &connections[(uint32_t) events[i].data.u64];
	  if (c->generation == events[i].data.u64 >> 32)
	    on_events (c, events[i].events);
	}
      if (n && o.mode != UDP)
	continue;
      now = now_ns ();
      if (now - last_progress > GIVE_UP_NS)
	give_up ("nothing has happened for 10 s (%d of %d connections stand)", n_open, o.n_connections);
      if (started && now >= phase_end)
	next_phase (now);
      if (o.mode == UDP && started && now - looked > DATAGRAM_LOST_NS / 2)
	{
	  looked = now;
	  send_lost_again (now);
	}
    }
}

static void
report (void)
{
  double seconds = (double) (to.clock - from.clock) / 1e9;
  double ours = (double) (to.server - from.server + to.vpp - from.vpp + to.self - from.self);
  double others = ((double) (to.busy - from.busy) - ours) / 1e9 / seconds;
  printf ("{\"operations\": %lu, \"seconds\": %.6f, \"rate\": %.3f, \"server_cpu_s\": %.9f, \"vpp_cpu_s\": %.9f, "
	  "\"client_cpu_s\": %.9f, \"others\": %.3f, \"p50_us\": %.3f, \"p99_us\": %.3f, \"p999_us\": %.3f, \"errors\": %lu}\n",
	  latencies.count, seconds, (double) latencies.count / seconds, (double) (to.server - from.server) / 1e9,
	  (double) (to.vpp - from.vpp) / 1e9, (double) (to.self - from.self) / 1e9, others > 0 ? others : 0, histogram_us (&latencies, 0.5),
	  histogram_us (&latencies, 0.99), histogram_us (&latencies, 0.999), errors);
  fflush (stdout);
}

/* Close and stay until VPP has taken note of it: of an application that leaves at once it keeps half of the cut-through
 * sessions, and the next one to come gets sessions that break. */
static void
leave (void)
{
  static struct epoll_event events[MAX_EVENTS];
  uint64_t until;
  for (int i = 0; i < o.n_connections; i++)
    if (connections[i].state != CLOSED)
      close_connection (&connections[i]);
  for (until = now_ns () + LEAVE_NS; !s->is_host && now_ns () < until;)
    wait_events (s, events, 10);
}

static void
make_request (void)
{
  if (o.mode == HTTP || o.mode == HTTP_CLOSE)
    {
      int n = asprintf (&request, "GET /%zu HTTP/1.1\r\nHost: benchmark\r\nAccept: */*\r\n%s\r\n", o.size,
			o.mode == HTTP_CLOSE ? "Connection: close\r\n" : "");
      request_size = (size_t) n;
      return;
    }
  request_size = o.size;
  request = malloc (o.size);
  for (size_t i = 0; i < o.size; i++)
    request[i] = (char) (i % 251); /* prime: no block size hides a byte that went missing */
}

static enum mode
mode_of (const char *name)
{
  static const char *names[] = { "echo", "http", "http-close", "connect", "udp" };
  for (int i = 0; i < 5; i++)
    if (!strcmp (name, names[i]))
      return (enum mode) i;
  give_up ("unknown mode: %s", name);
}

int
main (int argc, char **argv)
{
  static const struct option options[] = {
    { "table", 1, 0, 't' },	  { "mode", 1, 0, 'm' },   { "address", 1, 0, 'a' }, { "port", 1, 0, 'p' },
    { "connections", 1, 0, 'n' }, { "size", 1, 0, 's' },   { "warmup", 1, 0, 'w' },  { "seconds", 1, 0, 'd' },
    { "cpu", 1, 0, 'c' },	  { "tls", 0, 0, 'T' },	   { "library", 1, 0, 'l' }, { "server-pid", 1, 0, 'S' },
    { "vpp-pid", 1, 0, 'V' },	  { "verify", 0, 0, 'v' }, { 0 },
  };
  int option;
  while ((option = getopt_long (argc, argv, "", options, 0)) != -1)
    switch (option)
      {
      case 't': o.table = optarg; break;
      case 'm': o.mode = mode_of (optarg); break;
      case 'a': o.address = optarg; break;
      case 'p': o.port = atoi (optarg); break;
      case 'n': o.n_connections = atoi (optarg); break;
      case 's': o.size = (size_t) atol (optarg); break;
      case 'w': o.warmup_s = atof (optarg); break;
      case 'd': o.seconds = atof (optarg); break;
      case 'c': o.cpu = atoi (optarg); break;
      case 'T': o.tls = 1; break;
      case 'v': o.verify = 1; break;
      case 'l': o.library = optarg; break;
      case 'S': o.server_pid = atoi (optarg); break;
      case 'V': o.vpp_pid = atoi (optarg); break;
      default: return 2;
      }
  pin (o.cpu);
  make_request ();
  connections = calloc (o.n_connections, sizeof (*connections));
  for (int i = 0; i < o.n_connections; i++)
    {
      if (o.mode == HTTP || o.mode == HTTP_CLOSE)
	connections[i].response = calloc (1, sizeof (http_response));
      connections[i].request = request;
      if (o.verify)
	connections[i].request = memcpy (malloc (request_size), request, request_size);
    }
  peer = endpoint_of (o.address, o.port);
  open_stack (s, o.table, o.library, "benchmark-load");
  run ();
  report ();
  leave ();
  return 0;
}
