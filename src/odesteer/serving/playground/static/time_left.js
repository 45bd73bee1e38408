// Time left, from how fast tokens have come so far.

const SOONEST = 2; // seconds before anything is said, and under which nothing is

export class TimeLeft {
  start(total) {
    this.total = total;
    this.done = 0;
    this.began = performance.now();
  }

  add() {
    this.done += 1;
  }

  /** In words; "" while it is not known, and where it is short. At most: texts may end sooner. */
  get words() {
    const seconds = (performance.now() - this.began) / 1000;
    if (seconds < SOONEST || !this.done) return "";
    const left = Math.ceil((seconds / this.done) * (this.total - this.done));
    if (left < SOONEST) return "";
    return left < 90 ? `at most ${left} s left` : `at most ${Math.ceil(left / 60)} min left`;
  }
}
