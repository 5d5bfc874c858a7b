// The one client of this process.
import { Permcached } from 'permcached'

export const permissions = new Permcached({
  target: process.env.PERMCACHED_TARGET,
  token: process.env.PERMCACHED_TOKEN,
  deadlineMs: Number(process.env.PERMCACHED_DEADLINE_MS ?? 250),
  defaultSubject: 'user',
})
