/** How long to wait before the next attempt: 1 s, doubling to 30 s, each with jitter. */

const FIRST_SECONDS = 1;
const MOST_SECONDS = 30;

/** Between half and the whole of it, so that not everybody comes back at once. */
export function backoff(attempt, random = Math.random) {
  const whole = Math.min(MOST_SECONDS, FIRST_SECONDS * 2 ** attempt);
  return whole * (0.5 + random() / 2);
}
