# The table of python_ops/lake/state/dynamodb.py: watermarks, generations, leases.

variable "name" { type = string }
variable "key_arn" { type = string }

resource "aws_dynamodb_table" "this" {
  name                        = var.name
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "record"
  deletion_protection_enabled = true
  attribute {
    name = "record"
    type = "S"
  }
  ttl {
    attribute_name = "expires_at"
    enabled        = true
  }
  point_in_time_recovery { enabled = true }
  server_side_encryption {
    enabled     = true
    kms_key_arn = var.key_arn
  }
}

output "arn" { value = aws_dynamodb_table.this.arn }
output "name" { value = aws_dynamodb_table.this.name }
