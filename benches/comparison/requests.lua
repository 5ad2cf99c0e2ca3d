-- What wrk asks for: wrk … URL -- METHOD KEYS. Keys by chance, out of so many.
local head, tail, keys

function init(arguments)
  local method, mark = arguments[1], string.rep("#", 26)
  local body = method == "PUT" and string.rep("x", 256) or nil
  local whole = wrk.format(method, "/v1/kv/bench/" .. mark, nil, body)
  local first, last = string.find(whole, mark, 1, true)
  head, tail, keys = string.sub(whole, 1, first - 1), string.sub(whole, last + 1), tonumber(arguments[2])
  math.randomseed(os.time() + math.floor(os.clock() * 1e6))
end

function request()
  return head .. string.format("%026d", math.random(0, keys - 1)) .. tail
end

function done(summary)
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("measured %d %d %d %d\n", summary.requests, summary.duration, errors.status, broken))
end
