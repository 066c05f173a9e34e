# Places for secrets, without values: `aws secretsmanager put-secret-value` fills them, and no Terraform state has them.

variable "prefix" { type = string }
variable "names" { type = set(string) }
variable "key_arn" { type = string }

resource "aws_secretsmanager_secret" "this" {
  #checkov:skip=CKV2_AWS_57:the values are other systems' credentials; those systems rotate them, and lakeops takes the previous version meanwhile
  for_each   = var.names
  name       = "${var.prefix}${each.key}"
  kms_key_id = var.key_arn
}

output "arns" { value = [for secret in aws_secretsmanager_secret.this : secret.arn] }
