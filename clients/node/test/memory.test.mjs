// Memory stays flat. PERMCACHED_CHECKS sets how many checks are made: 10000000 for the long form.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import v8 from 'node:v8'
import vm from 'node:vm'
import { Permcached } from 'permcached'

const CHECKS = Number(process.env.PERMCACHED_CHECKS ?? 150_000)
const TOGETHER = 500

test('memory is flat over many checks', { timeout: 3_600_000 }, async () => {
  v8.setFlagsFromString('--expose-gc')
  const collect = vm.runInNewContext('gc')
  const child = spawn(process.execPath, [fileURLToPath(new URL('support/allow-all.mjs', import.meta.url))], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const [line] = await once(child.stdout, 'data')
  const permissions = new Permcached({ target: String(line).trim(), defaultSubject: 'user', deadlineMs: 30_000 })
  const { signal } = new AbortController()
  let id = 0
  const ask = async (count) => {
    for (let left = count; left > 0; left -= TOGETHER) {
      const options = [undefined, { signal }, { deadlineMs: 20_000 }, { atLeastAsFresh: `token-${id % 3}` }]
      await Promise.all(
        Array.from({ length: TOGETHER }, (_, index) =>
          permissions.can(`user-${(id += 1)}`, 'read', 'file', `file-${id}`, options[index % 4]),
        ),
      )
    }
    collect()
    return process.memoryUsage().heapUsed
  }
  const before = await ask(CHECKS / 3)
  const afterwards = await ask((CHECKS * 2) / 3)
  await permissions.close()
  child.stdin.end()
  const growth = (afterwards - before) / 2 ** 20
  assert.ok(growth < 4, `the heap grew by ${growth.toFixed(1)} MiB over ${(CHECKS * 2) / 3} checks`)
})
