// Calls the Node.js code of docs/clients.md and docs/lists.md: reads one question per line from stdin, and writes one answer per line to stdout.
// `scripts/test-clients` writes the questions and checks the answers.
import { createInterface } from 'node:readline'
import grpc from '@grpc/grpc-js'
import mongoose from 'mongoose'
import * as driver from './files-driver.mjs'
import { findFiles } from './files.mjs'
import { filesPage, readers } from './lists.mjs'
import { check, httpStatus, question, readable } from './permissions.mjs'
import { checkSince, unshare } from './sharing.mjs'

const mayRead = ({ user, file }) => question(user, 'read', 'file', file)

const commands = {
  async check(command) {
    const asked = mayRead(command)
    const { allowed, reason, grantedBy } = await (command.since ? checkSince(command.since, asked) : check(asked))
    return { allowed, reason, granted_by: grantedBy }
  },
  async status(command) {
    return { status: await httpStatus(mayRead(command)) }
  },
  async readable({ user, files }) {
    const { allowed, unanswered } = await readable(user, files)
    return { allowed, unanswered: Object.fromEntries([...unanswered].map(([id, { code }]) => [id, grpc.status[code]])) }
  },
  async find({ user, own, via, since }) {
    const consistency = since && { atLeastAsFresh: { operationTime: since } }
    const found = await (via === 'driver' ? driver.findFiles : findFiles)(user, own, { consistency })
    return { names: found.map(({ name }) => name) }
  },
  async page({ user, token, size, within }) {
    return filesPage(user, { pageToken: token, pageSize: size, within })
  },
  async readers({ file }) {
    return readers(file)
  },
  async unshare({ share }) {
    return unshare(share)
  },
}

await mongoose.connect(process.env.MONGODB_URI)
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line)
  const answer = await commands[command.do](command).catch((error) => ({ error: grpc.status[error.code] ?? error.message }))
  console.log(JSON.stringify(answer))
}
process.exit()
