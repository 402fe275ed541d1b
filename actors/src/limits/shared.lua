-- The rules of `bucket.rs`, for buckets that several gateways share.
--
-- KEYS: the buckets. ARGV: window, part, longest debt (in windows), 1 to take and 0 to charge;
-- then for each bucket its size and what is spent. Taking spends only if every bucket has something.
-- Answer: 1 or 0 for spent, then for each bucket what is spent, the wait and the time until it is
-- full, in milliseconds. Redis has the clock, so that those of the gateways do not matter.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local window, part, debt = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local function read(key)
  local raw = redis.call('GET', key)
  local all, bucket = raw and cmsgpack.unpack(raw) or {}, { spent = 0 }
  for i = 1, #all, 2 do
    if all[i] > now then
      bucket[#bucket + 1] = all[i]
      bucket[#bucket + 1] = all[i + 1]
      bucket.spent = bucket.spent + all[i + 1]
    end
  end
  return bucket
end

local function push(bucket, at, amount)
  if amount <= 0 then return end
  bucket.spent = bucket.spent + amount
  local last = #bucket
  if last > 0 and at <= bucket[last - 1] then
    bucket[last] = bucket[last] + amount
  else
    bucket[last + 1] = at
    bucket[last + 2] = amount
  end
end

local function spend(bucket, size, amount)
  amount = math.min(amount, math.max(size * (debt + 1) - bucket.spent, 0))
  local covered = math.min(amount, math.max(size - bucket.spent, 0))
  local ahead = math.max(bucket.spent - size, 0)
  push(bucket, math.ceil((now + window) / part) * part, covered)
  local overdrawn, place = amount - covered, 1
  while overdrawn > 0 and bucket[place] do
    local at, there = bucket[place], bucket[place + 1]
    local here = math.min(math.max(there - ahead, 0), overdrawn)
    push(bucket, at + window, here)
    overdrawn = overdrawn - here
    ahead = math.max(ahead - there, 0)
    place = place + 2
  end
end

local function wait(bucket, size)
  local needed = bucket.spent + 1 - size
  for i = 1, #bucket, 2 do
    if needed <= 0 then return 0 end
    needed = needed - bucket[i + 1]
    if needed <= 0 then return bucket[i] - now end
  end
  return 0
end

local buckets, spent = {}, 1
for i = 1, #KEYS do
  buckets[i] = read(KEYS[i])
  if ARGV[4] == '1' and buckets[i].spent >= tonumber(ARGV[3 + 2 * i]) then spent = 0 end
end
local answer = { spent }
for i = 1, #KEYS do
  local bucket, size, amount = buckets[i], tonumber(ARGV[3 + 2 * i]), tonumber(ARGV[4 + 2 * i])
  if spent == 1 and amount > 0 then
    spend(bucket, size, amount)
    local last = bucket[#bucket - 1]
    if last then
      redis.call('SET', KEYS[i], cmsgpack.pack({ unpack(bucket) }), 'PX', last - now + 1000)
    end
  end
  answer[#answer + 1] = bucket.spent
  answer[#answer + 1] = wait(bucket, size)
  answer[#answer + 1] = #bucket > 0 and bucket[#bucket - 1] - now or 0
end
return answer
