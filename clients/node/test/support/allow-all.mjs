// A server in a process of its own that allows everything. Prints its address, and ends with its standard input.
import { scripted } from './scripted.mjs'

const server = await scripted({}, {})
console.log(server.target)
// Records of calls would fill the memory.
server.calls.push = () => 0
process.stdin.resume().once('end', () => process.exit())
