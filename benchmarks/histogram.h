/* SPDX-License-Identifier: Apache-2.0
 *
 * Latencies in logarithmic buckets: 32 to a power of two, so a percentile is right within 3 % at any size.
 */
#ifndef BENCHMARKS_HISTOGRAM_H
#define BENCHMARKS_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_STEPS 32
#define HISTOGRAM_BUCKETS (HISTOGRAM_STEPS * 60)

typedef struct
{
  uint64_t count;
  uint64_t buckets[HISTOGRAM_BUCKETS];
} histogram;

static inline void
histogram_add (histogram *h, uint64_t ns)
{
  /* Below 32 ns a bucket is a nanosecond; above, the five bits behind the leading one choose the step. */
  int power = 63 - __builtin_clzll (ns | HISTOGRAM_STEPS);
  uint32_t index = (power - 5) * HISTOGRAM_STEPS + (uint32_t) (ns >> (power - 5));
  h->buckets[index < HISTOGRAM_BUCKETS ? index : HISTOGRAM_BUCKETS - 1]++;
  h->count++;
}

/* The upper edge of the bucket that `share` of the values do not pass, in microseconds. */
static double
histogram_us (const histogram *h, double share)
{
  uint64_t wanted = (uint64_t) (share * (double) h->count), seen = 0;
  for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++)
    if ((seen += h->buckets[i]) > wanted || (seen && seen == h->count))
      {
	uint32_t shift = i < HISTOGRAM_STEPS ? 0 : i / HISTOGRAM_STEPS - 1;
	uint64_t step = i < HISTOGRAM_STEPS ? i : i % HISTOGRAM_STEPS + HISTOGRAM_STEPS;
	return (double) ((step + 1) << shift) / 1e3;
      }
  return 0;
}

#endif
