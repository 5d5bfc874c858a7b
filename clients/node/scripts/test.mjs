// Runs the tests: starts one mongod and one Redis for all of them, and ends both.
//
//   npm test -- [FILE…]
//
// PERMCACHED_PROGRAM is the server, ../../target/debug/permcached if it is not set. MONGOD and REDIS_SERVER are found by
// scripts/fetch-test-servers if they are not set. Builds nothing.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { freePort, startMongod, startRedis } from '../test/support/databases.mjs'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const repository = resolve(root, '../..')

function fail(text) {
  console.error(`test: ${text}`)
  process.exit(1)
}

const program = process.env.PERMCACHED_PROGRAM ?? join(repository, 'target/debug/permcached')
if (!existsSync(program)) fail(`${program} does not exist: run cargo build --locked, or set PERMCACHED_PROGRAM`)
if (!existsSync(join(root, 'dist/index.mjs'))) fail('dist does not exist: run npm run build')

function servers() {
  const { MONGOD, REDIS_SERVER } = process.env
  if (MONGOD && REDIS_SERVER) return { MONGOD, REDIS_SERVER }
  const found = spawnSync(join(repository, 'scripts/fetch-test-servers'), { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
  if (found.status !== 0) fail('there is no mongod or no redis-server')
  const all = Object.fromEntries(
    found.stdout
      .trim()
      .split('\n')
      .map((line) => line.split('=')),
  )
  return { MONGOD: MONGOD ?? all.MONGOD, REDIS_SERVER: REDIS_SERVER ?? all.REDIS_SERVER }
}

const { MONGOD, REDIS_SERVER } = servers()
const scratch = mkdtempSync(join(tmpdir(), 'permcached-node-'))
const running = []
let status = 1
const stop = () => {
  for (const server of running) server.kill('SIGKILL')
  rmSync(scratch, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 })
}
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => {
    stop()
    process.exit(1)
  })
}
try {
  const mongod = await startMongod(MONGOD, join(scratch, 'mongod'), await freePort())
  running.push(mongod.process)
  const redis = await startRedis(REDIS_SERVER, join(scratch, 'redis'), await freePort())
  running.push(redis.process)
  const chosen = process.argv.slice(2)
  const files =
    chosen.length > 0
      ? chosen
      : readdirSync(join(root, 'test'))
          .filter((name) => /\.test\.(mjs|cjs)$/.test(name))
          .map((name) => join('test', name))
  // Two at a time: each has servers of its own.
  const tests = spawn(process.execPath, ['--test', '--test-concurrency=2', '--test-timeout=120000', '--test-reporter=spec', ...files], {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, PERMCACHED_PROGRAM: program, MONGOD, TEST_MONGODB: mongod.uri, TEST_REDIS: redis.uri },
  })
  running.push(tests)
  status = await new Promise((done) => tests.once('close', (code) => done(code ?? 1)))
} finally {
  stop()
}
process.exit(status)
