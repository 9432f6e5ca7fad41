-- For wrk: every request differs in one field, so that none is answered from memory.
local number = 0
request = function()
  number = number + 1
  return wrk.format("GET", nil, { ["X-Number"] = number })
end
