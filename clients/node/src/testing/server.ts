/** The real server, started for a test. */

import { spawn, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { Permcached, type PermcachedOptions } from '../client.js'
import { writeCollection } from './documents.js'

/** What the server answers from. */
export interface StartOptions {
  /** The schema: the path of a file, or the text itself if it has more than one line. */
  schema: string
  /** The documents: a directory of `<collection>.jsonl` files, or the documents of each collection. */
  documents?: string | Readonly<Record<string, readonly object[]>> | undefined
  /** A database in place of documents. It has to be a replica set for changes to be seen at once. */
  mongodbUri?: string | undefined
  /** The program. The variable PERMCACHED_PROGRAM if left out, else `permcached` on the PATH. */
  program?: string | undefined
  /** Further variables of the server, such as MAX_STALENESS. */
  env?: Readonly<Record<string, string>> | undefined
  /** Options of the client. */
  client?: Partial<PermcachedOptions> | undefined
  /** How long the server may take to start, in milliseconds. 30,000 if left out. */
  startMs?: number | undefined
}

/** A server that runs until it is stopped. */
export interface StartedPermcached extends AsyncDisposable {
  /** Where it listens. */
  readonly target: string
  /** The token that it accepts, with the scope admin. */
  readonly token: string
  /** The process. */
  readonly pid: number
  /** A client of it. */
  readonly permissions: Permcached
  /** Replaces the documents of a collection. Checks with `fullyConsistent` see that at once. */
  write(collection: string, documents: readonly object[]): void
  /** Closes the client, and ends the server. */
  stop(): Promise<void>
}

/** How long the server may take to stop. */
const STOP_MS = 5_000

/** How many lines of the log an error shows. */
const LINES_MAX = 20

/** Starts the real server, and waits until it is ready. */
export async function startPermcached(options: StartOptions): Promise<StartedPermcached> {
  const { schema, documents, mongodbUri } = options
  if ((documents === undefined) === (mongodbUri === undefined)) throw new TypeError('startPermcached takes either documents or mongodbUri')
  const scratch = mkdtempSync(join(tmpdir(), 'permcached-'))
  const own = join(scratch, 'documents')
  const schemaFile = schema.includes('\n') ? join(scratch, 'schema.toml') : schema
  if (schemaFile !== schema) writeFileSync(schemaFile, schema)
  const source = typeof documents === 'string' ? documents : own
  if (typeof documents === 'object') {
    for (const [collection, all] of Object.entries(documents)) writeCollection(own, collection, all)
  }
  const token = randomBytes(16).toString('hex')
  const env = {
    ...systemEnvironment(),
    ...options.env,
    AUTH_ADMIN_TOKENS: `tests:${token}`,
    ...(mongodbUri === undefined ? {} : { MONGODB_URI: mongodbUri }),
  }
  const program = options.program ?? process.env['PERMCACHED_PROGRAM'] ?? 'permcached'
  const args = [
    'serve',
    '--bind',
    '127.0.0.1',
    '--port',
    '0',
    '--schema',
    schemaFile,
    ...(mongodbUri === undefined ? ['--documents', source] : []),
  ]
  const server = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'] })
  // A test that is killed must not leave the server behind.
  const kill = () => server.kill('SIGKILL')
  process.once('exit', kill)
  let target: string
  try {
    target = await listening(server, program, options.startMs ?? 30_000)
  } catch (error) {
    kill()
    process.off('exit', kill)
    rmSync(scratch, { recursive: true, force: true })
    throw error
  }
  const permissions = new Permcached({ deadlineMs: 5_000, ...options.client, target, token })
  let stopping: Promise<void> | undefined
  const stop = async () => {
    await permissions.close()
    await ended(server)
    process.off('exit', kill)
    rmSync(scratch, { recursive: true, force: true })
  }
  const started = {
    target,
    token,
    pid: server.pid ?? 0,
    permissions,
    write(collection: string, all: readonly object[]) {
      if (mongodbUri !== undefined) throw new TypeError('the documents are in the database: write them there')
      writeCollection(source, collection, all)
    },
    stop: () => (stopping ??= stop()),
    [Symbol.asyncDispose]: () => started.stop(),
  }
  return started
}

/** The variables of the system that a program requires. None of those that configure a server. */
function systemEnvironment(): Record<string, string> {
  const { PATH = '', HOME = '', TMPDIR, SystemRoot } = process.env
  return { PATH, HOME, ...(TMPDIR === undefined ? {} : { TMPDIR }), ...(SystemRoot === undefined ? {} : { SystemRoot }) }
}

/** Waits for the log line that has the address. */
function listening(server: ChildProcess, program: string, startMs: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const last: string[] = []
    const fail = (what: string) => {
      clearTimeout(timer)
      reject(new Error(`${program} ${what}\n${last.join('\n')}`))
    }
    const timer = setTimeout(() => fail(`was not ready after ${startMs} ms`), startMs)
    const line = (text: string) => {
      last.push(text)
      if (last.length > LINES_MAX) last.shift()
      const address = addressIn(text)
      if (address === undefined) return
      clearTimeout(timer)
      resolve(address)
    }
    for (const output of [server.stdout, server.stderr]) if (output) createInterface({ input: output }).on('line', line)
    server.once('error', (error: NodeJS.ErrnoException) => {
      const remedy = error.code === 'ENOENT' ? ': put it on the PATH, set PERMCACHED_PROGRAM, or use the option program' : ''
      fail(`could not be started (${error.code ?? error.message})${remedy}`)
    })
    server.once('close', (code) => fail(`ended with ${code}`))
  })
}

/** The address in a line of the log, if the line means that the server is ready. */
function addressIn(line: string): string | undefined {
  try {
    const { message, address } = JSON.parse(line) as { message?: unknown; address?: unknown }
    return message === 'ready' && typeof address === 'string' ? address : undefined
  } catch {
    return undefined
  }
}

/** Ends a program, at first with SIGTERM. */
function ended(server: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    if (server.exitCode !== null || server.signalCode !== null) return resolve()
    const timer = setTimeout(() => server.kill('SIGKILL'), STOP_MS)
    server.once('close', () => {
      clearTimeout(timer)
      resolve()
    })
    server.kill('SIGTERM')
  })
}
